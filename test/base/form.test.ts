// Forms against a library's schemas of the same words: what one of them takes, the other one takes.

import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { z } from "zod";
import {
  dictionary,
  type Form,
  integer,
  list,
  matching,
  moment,
  oneOf,
  optional,
  record,
  text,
  which,
} from "../../src/base/form.ts";

const seed = Number(process.env.SEED ?? Date.now() % 2 ** 31);
console.log(`seed ${seed} (SEED=${seed} repeats this run)`);

const NAME = /^[a-z_]{1,8}$/;
const isEven = (value: number) => value % 2 === 0;

const form = record({
  name: matching(NAME),
  size: integer(1, 2 ** 40),
  even: which(integer(-4), isEven, "it is odd"),
  kind: oneOf("a", 7),
  title: text({ max: 4 }),
  since: moment(),
  of: optional(record({ name: matching(NAME) })),
  parts: list(record({ size: integer(0) }), { min: 1, max: 3 }),
  notes: dictionary(NAME, text({ max: 4 }), { max: 2 }),
});

const schema = z.looseObject({
  name: z.string().regex(NAME),
  size: z
    .int()
    .min(1)
    .max(2 ** 40),
  even: z.int().min(-4).refine(isEven),
  kind: z.union([z.literal("a"), z.literal(7)]),
  title: z.string().max(4),
  since: z.iso.datetime(),
  of: z.looseObject({ name: z.string().regex(NAME) }).optional(),
  parts: z
    .array(z.looseObject({ size: z.int().min(0) }))
    .min(1)
    .max(3),
  notes: z
    .record(z.string().regex(NAME), z.string().max(4))
    .refine((notes) => Object.keys(notes).length <= 2),
});

const right = {
  name: "web",
  size: 4096,
  even: 2,
  kind: "a",
  title: "memo",
  since: "2024-02-29T23:59:59.5Z",
  of: { name: "base" },
  parts: [{ size: 0 }, { size: 1 }],
  notes: { one: "1", two: "2" },
};

/** JSON that somebody might send. */
const anything = fc.oneof(
  fc.constantFrom<unknown>(null, true, "", "web", "a", "WEB", "longer", [], {}, [{}], { size: 1 }),
  fc.constantFrom<unknown>(0, -0, 1, 2, 3, 7, -4, -5, 0.5, 2 ** 40, 2 ** 40 + 1, 2 ** 53, 1e308),
  fc.constantFrom("2023-02-29T00:00:00Z", "2024-02-30T00:00Z", "2024-01-01T24:00:00Z", "2024-01-01"),
  fc.constantFrom("2024-12-31T00:00Z", "2024-13-01T00:00:00Z", "2024-01-01T00:00:60Z", "2024-01-01T00:00:00"),
  fc.jsonValue({ maxDepth: 2 }),
);

/** Where something is to be put: a field at any depth, one that nobody knows, or one that is to go. */
const place = fc.constantFrom(
  ...Object.keys(right).map((key) => [key]),
  ...[
    ["of", "name"],
    ["parts", "0"],
    ["parts", "1", "size"],
    ["parts", "2"],
    ["parts", "4"],
  ],
  ...[["notes", "three"], ["notes", "NO"], ["notes", "one"], ["other"], ["toString"]],
);
const change = fc.record({ place, value: fc.option(anything, { nil: undefined }) });

function changed(changes: readonly { place: readonly string[]; value: unknown }[]): unknown {
  const value = structuredClone(right) as Record<string, unknown>;
  for (const { place, value: put } of changes) {
    const holder = place
      .slice(0, -1)
      .reduce<unknown>((at, key) => (at as typeof value | undefined)?.[key], value);
    if (typeof holder !== "object" || holder === null) continue;
    (holder as Record<string, unknown>)[place.at(-1)!] = put;
  }
  return JSON.parse(JSON.stringify(value));
}

test("a form takes what a schema takes, and says where it does not", () => {
  assert.equal(form(right), undefined);
  let refused = 0;
  const values = fc.oneof(fc.array(change, { minLength: 1, maxLength: 2 }).map(changed), anything);
  fc.assert(
    fc.property(values, (value) => {
      const [flaw, expected] = [form(value), schema.safeParse(value)];
      assert.equal(
        flaw === undefined,
        expected.success,
        `${JSON.stringify(flaw)} ${expected.error?.message}`,
      );
      if (flaw === undefined) return;
      refused++;
      const at = flaw.at.join(".");
      const places = expected.error!.issues.map(({ path }) => path.join("."));
      assert.ok(
        places.some((place) => `${place}.`.startsWith(at && `${at}.`)),
        `at ${at}, not one of ${places}`,
      );
    }),
    { seed, numRuns: 3000 },
  );
  assert.ok(refused > 500);
});

test("nothing is taken for a field that comes from a prototype", () => {
  const flaw = (record({ toString: text() }) as Form<unknown>)({});
  assert.deepEqual(flaw, { at: ["toString"], why: "it is not a text" });
});
