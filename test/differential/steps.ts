// What a random program consists of: steps whose numbers are small and mean something only against the state that
// they meet ("the second of the userfaultfds that are open"), so that a program stays a program when steps are
// taken out of it, which is how the smallest failing one is found.

import fc from "fast-check";

/** A range of pages, or a way in which a range can be wrong. */
export interface Place {
  readonly area: number;
  readonly page: number;
  readonly count: number;
  readonly edge: "none" | "start+1" | "length+1" | "length 0" | "kernel" | "wrap";
}

interface Base {
  readonly actor: number;
  readonly thread: number;
}

export type Fill = "copy" | "zeropage" | "continue" | "poison" | "move";

export type Step = Base &
  (
    | {
        readonly kind: "open";
        readonly flags: number;
        readonly features: number;
        readonly api: "good" | "bad" | "none";
      }
    | { readonly kind: "handshake"; readonly handle: number; readonly features: number }
    | { readonly kind: "register"; readonly handle: number; readonly place: Place; readonly mode: number }
    | { readonly kind: "unregister" | "wake"; readonly handle: number; readonly place: Place }
    | { readonly kind: "writeprotect"; readonly handle: number; readonly place: Place; readonly mode: number }
    | {
        readonly kind: "fill";
        readonly fill: Fill;
        readonly handle: number;
        readonly place: Place;
        readonly mode: number;
        /** Where COPY and MOVE take from. */
        readonly from: { readonly area: number; readonly page: number; readonly offset: number };
        /** Where the argument is: fine, at an address without memory, or in memory that can't be written. */
        readonly pointer: "good" | "bad" | "read-only";
      }
    | {
        readonly kind: "read";
        readonly handle: number;
        readonly bytes: number;
        readonly buffer: "good" | "bad";
      }
    | { readonly kind: "poll" | "close" | "duplicate"; readonly handle: number }
    | { readonly kind: "blocking"; readonly handle: number; readonly on: boolean }
    | {
        readonly kind: "access";
        readonly access: "load" | "load8" | "store" | "add" | "execute" | "read(2)" | "write(2)";
        readonly area: number;
        readonly page: number;
        readonly offset: number;
      }
    | {
        readonly kind: "mmap";
        readonly place: Place;
        readonly protection: number;
        readonly over: boolean;
        /** POPULATE, LOCKED, NORESERVE or nothing. */
        readonly extra: number;
      }
    | {
        readonly kind: "object";
        readonly how: "truncate" | "punch";
        readonly page: number;
        readonly count: number;
      }
    | { readonly kind: "munmap"; readonly place: Place }
    | { readonly kind: "mprotect"; readonly place: Place; readonly protection: number }
    | { readonly kind: "madvise"; readonly place: Place; readonly advice: string }
    | {
        readonly kind: "mremap";
        readonly place: Place;
        readonly newCount: number;
        readonly to: { readonly area: number; readonly page: number } | undefined;
        readonly dontUnmap: boolean;
      }
    | { readonly kind: "fork" | "kill" | "signal" }
    | { readonly kind: "mlock" | "munlock"; readonly place: Place }
    | {
        readonly kind: "vm";
        /** Whose memory. */
        readonly other: number;
        readonly write: boolean;
        readonly area: number;
        readonly page: number;
      }
    | { readonly kind: "mincore"; readonly place: Place }
    | {
        readonly kind: "scan";
        readonly place: Place;
        readonly flags: number;
        readonly categories: number;
        readonly vector: number;
        readonly pagesMax: number;
      }
  );

export interface Program {
  /** Whether there is an area of huge pages. */
  readonly huge: boolean;
  /** Whether system calls begin anew after a caught signal. */
  readonly restart: boolean;
  readonly steps: readonly Step[];
}

const small = fc.integer({ min: 0, max: 3 });
const page = fc.oneof(
  { weight: 6, arbitrary: fc.integer({ min: 0, max: 3 }) },
  { weight: 2, arbitrary: fc.integer({ min: 4, max: 11 }) },
);
const area = fc.oneof(
  { weight: 8, arbitrary: fc.constantFrom(0, 0, 0, 2, 2, 4) },
  { weight: 4, arbitrary: fc.integer({ min: 0, max: 6 }) },
);
const place: fc.Arbitrary<Place> = fc.record({
  area,
  page,
  count: fc.oneof(
    { weight: 5, arbitrary: fc.constant(1) },
    { weight: 3, arbitrary: fc.integer({ min: 2, max: 4 }) },
    { weight: 2, arbitrary: fc.integer({ min: 5, max: 12 }) },
  ),
  edge: fc.oneof(
    { weight: 40, arbitrary: fc.constant("none" as const) },
    {
      weight: 1,
      arbitrary: fc.constantFrom("start+1", "length+1", "length 0", "kernel", "wrap" as const),
    },
  ),
});
/** Many faults should be seen: whole areas are registered more often than pieces. */
const wide: fc.Arbitrary<Place> = fc.oneof(
  {
    weight: 4,
    arbitrary: fc.record({
      area,
      page: fc.constant(0),
      count: fc.constant(8),
      edge: fc.constant("none" as const),
    }),
  },
  { weight: 3, arbitrary: place },
);

const base = { actor: fc.constantFrom(0, 0, 0, 0, 1, 2), thread: small };
const handle = fc.constantFrom(0, 0, 0, 1, 1, 2, 3);
const protection = fc.constantFrom(0, 1, 3, 3, 3);
const mode = (usual: readonly number[], unknown: number) =>
  fc.oneof(
    { weight: 20, arbitrary: fc.constantFrom(...usual) },
    { weight: 1, arbitrary: fc.constant(unknown) },
  );
/** Feature bits that change what happens, alone and together. */
const features = fc.oneof(
  { weight: 3, arbitrary: fc.constant(0) },
  { weight: 5, arbitrary: fc.subarray([1, 2, 3, 6, 7, 8, 11, 13, 15]).map(bits) },
  { weight: 2, arbitrary: fc.subarray([1, 2, 3, 6, 8]).map(bits) },
  { weight: 1, arbitrary: fc.constantFrom(0x1ffff, 1 << 17, 1 << 20) },
);

function bits(numbers: readonly number[]): number {
  return numbers.reduce((mask, bit) => mask | (1 << bit), 0);
}

const ADVICE = [
  ...["DONTNEED", "DONTNEED", "DONTNEED", "FREE", "REMOVE", "REMOVE", "DONTFORK", "DOFORK"],
  ...["POPULATE_READ", "POPULATE_WRITE", "WILLNEED", "COLD", "DONTNEED_LOCKED", "RANDOM", "NORMAL"],
  ...["GUARD_INSTALL", "GUARD_REMOVE", "WIPEONFORK", "KEEPONFORK", "SEQUENTIAL"],
];

const fill = fc
  .constantFrom<Fill>("copy", "copy", "copy", "zeropage", "zeropage", "continue", "poison", "move", "move")
  .chain((kind) =>
    fc.record({
      kind: fc.constant("fill" as const),
      fill: fc.constant(kind),
      handle,
      place,
      mode:
        kind === "copy" || kind === "continue" || kind === "move"
          ? mode([0, 0, 0, 1, 2, 3], 4)
          : mode([0, 0, 0, 1], 2),
      from: fc.record({
        area:
          kind === "move"
            ? fc.constantFrom(0, 1, 1, 2, 5)
            : fc.oneof(
                { weight: 9, arbitrary: fc.constant(5) },
                { weight: 2, arbitrary: fc.constantFrom(0, 1, 2) },
              ),
        page,
        offset: fc.oneof(
          { weight: 20, arbitrary: fc.constant(0) },
          { weight: 1, arbitrary: fc.constantFrom(3, 0x800) },
        ),
      }),
      pointer: fc.oneof(
        { weight: 40, arbitrary: fc.constant("good" as const) },
        { weight: 2, arbitrary: fc.constantFrom("bad", "read-only" as const) },
      ),
      ...base,
    }),
  );

const step = (huge: boolean): fc.Arbitrary<Step> =>
  fc
    .oneof(
      {
        weight: 4,
        arbitrary: fc.record({
          kind: fc.constant("open" as const),
          flags: fc.constantFrom(0x800, 0x800, 0x800, 0x800, 0x80800, 0, 1, 0x801, 2),
          features,
          api: fc.constantFrom("good", "good", "good", "good", "good", "bad", "none" as const),
          ...base,
        }),
      },
      {
        weight: 1,
        arbitrary: fc.record({ kind: fc.constant("handshake" as const), handle, features, ...base }),
      },
      {
        weight: 12,
        arbitrary: fc.record({
          kind: fc.constant("register" as const),
          handle,
          place: wide,
          mode: mode([1, 1, 1, 2, 3, 3, 4, 5, 7], 8),
          ...base,
        }),
      },
      {
        weight: 3,
        arbitrary: fc.record({
          kind: fc.constantFrom("unregister", "wake", "wake" as const),
          handle,
          place: wide,
          ...base,
        }),
      },
      { weight: 18, arbitrary: fill },
      {
        weight: 7,
        arbitrary: fc.record({
          kind: fc.constant("writeprotect" as const),
          handle,
          place: wide,
          mode: mode([0, 1, 1, 1, 2], 4),
          ...base,
        }),
      },
      {
        weight: 12,
        arbitrary: fc.record({
          kind: fc.constant("read" as const),
          handle,
          bytes: fc.constantFrom(32, 32, 64, 100, 3072, 3072, 3072, 31, 0),
          buffer: fc.oneof(
            { weight: 30, arbitrary: fc.constant("good" as const) },
            { weight: 1, arbitrary: fc.constant("bad" as const) },
          ),
          ...base,
        }),
      },
      {
        weight: 3,
        arbitrary: fc.record({
          kind: fc.constantFrom("poll", "poll", "poll", "close", "duplicate" as const),
          handle,
          ...base,
        }),
      },
      {
        weight: 1,
        arbitrary: fc.record({ kind: fc.constant("blocking" as const), handle, on: fc.boolean(), ...base }),
      },
      {
        weight: 24,
        arbitrary: fc.record({
          kind: fc.constant("access" as const),
          access: fc.constantFrom(
            ...([
              "load",
              "load",
              "load8",
              "store",
              "store",
              "add",
              "execute",
              "read(2)",
              "write(2)",
            ] as const),
          ),
          area,
          page,
          offset: small,
          ...base,
        }),
      },
      {
        weight: 3,
        arbitrary: fc.record({
          kind: fc.constant("mmap" as const),
          place,
          protection,
          over: fc.boolean(),
          extra: fc.constantFrom(0, 0, 0, 0, 0, 0x8000, 0x2000, 0x4000),
          ...base,
        }),
      },
      { weight: 2, arbitrary: fc.record({ kind: fc.constant("munmap" as const), place, ...base }) },
      {
        weight: 2,
        arbitrary: fc.record({
          kind: fc.constant("object" as const),
          how: fc.constantFrom("truncate", "punch" as const),
          page: fc.integer({ min: 0, max: 12 }),
          count: fc.integer({ min: 1, max: 4 }),
          ...base,
        }),
      },
      {
        weight: 3,
        arbitrary: fc.record({ kind: fc.constant("mprotect" as const), place, protection, ...base }),
      },
      {
        weight: 8,
        arbitrary: fc.record({
          kind: fc.constant("madvise" as const),
          place,
          advice: fc.constantFrom(...ADVICE),
          ...base,
        }),
      },
      {
        weight: 4,
        arbitrary: fc.record({
          kind: fc.constant("mremap" as const),
          place,
          newCount: fc.integer({ min: 1, max: 12 }),
          to: fc.option(fc.record({ area: fc.constantFrom(0, 1, 1, 2, 3, 4), page }), {
            nil: undefined,
            freq: 3,
          }),
          dontUnmap: fc.constantFrom(false, false, false, true),
          ...base,
        }),
      },
      {
        weight: 2,
        arbitrary: fc.record({ kind: fc.constantFrom("fork", "fork", "kill" as const), ...base }),
      },
      { weight: 2, arbitrary: fc.record({ kind: fc.constant("signal" as const), ...base }) },
      {
        weight: 2,
        arbitrary: fc.record({ kind: fc.constantFrom("mlock", "munlock" as const), place, ...base }),
      },
      {
        weight: 2,
        arbitrary: fc.record({
          kind: fc.constant("vm" as const),
          other: fc.constantFrom(0, 0, 1, 2),
          write: fc.boolean(),
          area,
          page,
          ...base,
        }),
      },
      { weight: 1, arbitrary: fc.record({ kind: fc.constant("mincore" as const), place, ...base }) },
      {
        weight: 3,
        arbitrary: fc.record({
          kind: fc.constant("scan" as const),
          place: wide,
          flags: fc.constantFrom(0, 0, 1, 2, 3, 3, 4),
          categories: fc.constantFrom(0, 1, 2, 2, 2, 3, 8, 10, 32, 64),
          vector: fc.constantFrom(1, 2, 16, 16, 16, 0),
          pagesMax: fc.constantFrom(0, 0, 0, 1, 3),
          ...base,
        }),
      },
    )
    .map((made) => (huge ? made : withoutHuge(made)));

/** A huge page costs 2 MiB of zeroing: most programs do without. */
function withoutHuge(made: Step): Step {
  const small = (index: number) => (index === 6 ? 0 : index);
  const changed = { ...made } as Step & { area?: number; place?: Place };
  if ("area" in changed && typeof changed.area === "number")
    Object.assign(changed, { area: small(changed.area) });
  if ("place" in changed && changed.place !== undefined) {
    Object.assign(changed, { place: { ...changed.place, area: small(changed.place.area) } });
  }
  return changed;
}

/** How most programs begin: a userfaultfd is opened and some areas are registered with it. */
const opening: fc.Arbitrary<Step[]> = fc
  .record({
    flags: fc.constantFrom(0x800, 0x800, 0x800, 0, 0x801),
    features,
    areas: fc.subarray([0, 1, 2, 4], { minLength: 1 }),
    mode: fc.constantFrom(1, 1, 1, 2, 3, 3, 5, 7),
  })
  .map(({ flags, features, areas, mode }) => [
    { kind: "open", flags, features, api: "good", actor: 0, thread: 0 },
    ...areas.map((area): Step => {
      const place = { area, page: 0, count: 8, edge: "none" as const };
      // MINOR is for memory that is shared.
      return {
        kind: "register",
        handle: 0,
        place,
        mode: area < 2 ? mode & 3 || 1 : mode,
        actor: 0,
        thread: 0,
      };
    }),
  ]);

/** Programs of at most so many steps. */
export function programs(stepsMax: number, huge = true): fc.Arbitrary<Program> {
  return fc
    .constantFrom(false, false, false, false, false, false, false, huge)
    .chain((huge) =>
      fc.record({
        huge: fc.constant(huge),
        restart: fc.boolean(),
        begin: fc.oneof({ weight: 9, arbitrary: opening }, { weight: 1, arbitrary: fc.constant([]) }),
        steps: fc.array(step(huge), { minLength: 1, maxLength: stepsMax, size: "max" }),
      }),
    )
    .map(({ huge, restart, begin, steps }) => ({ huge, restart, steps: [...begin, ...steps] }));
}
