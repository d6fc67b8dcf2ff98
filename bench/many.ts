// Many guests in one pager, what disturbs it, and what it costs: `npm run bench -- many`.

import { readFileSync } from "node:fs";
import { MAP } from "../src/abi/memory.ts";
import { affinity, close, local, memfd, mmap, munmap } from "../src/linux/index.ts";
import {
  openPagerHost,
  type PagerHost,
  type PagerImage,
  pagerStateBytes,
  startPager,
} from "../src/pager/index.ts";
import { CHandlers, type Post } from "./c-handler.ts";
import { Crowd, times } from "./crowd.ts";
import { Litterer } from "./litterer.ts";
import { LoadMeter } from "./load.ts";
import { atMost, type Group, measured, type Row } from "./report.ts";
import { alternate, median, ratioOf, roundsMax } from "./rounds.ts";

const PAGE = 4096;
const MIB = 2 ** 20;
const GIB = 2 ** 30;
const GUESTS = 1000;
/** Pages of a walk: a guest's turn. */
const TURN = 8;

type Image = Extract<PagerImage, { readonly address: number }>;

export interface ManyOptions {
  readonly rounds: number;
  readonly quick?: boolean;
  readonly meter?: LoadMeter;
}

/** All groups, in order. */
export async function many(options: ManyOptions): Promise<Group[]> {
  return [await latencies(options), await disturbances(options), await costs(options)];
}

const COLUMNS = [
  { key: "p50", title: "p50 µs", digits: 1 },
  { key: "p99", title: "p99 µs", digits: 1 },
  { key: "p999", title: "p99.9 µs", digits: 1 },
];

/** An image in this process's memory, every page of it present. */
function makeImage(byteLength: number): Image {
  const address = mmap(local, byteLength, { flags: MAP.PRIVATE | MAP.ANONYMOUS | MAP.POPULATE });
  return { address, byteLength };
}

function dropImage({ address, byteLength }: Image): void {
  munmap(local, address, byteLength);
}

// ── a fault of one guest, alone and among a thousand ──

/** How many guests, and pages of each for all rounds. */
interface Turns {
  readonly guests: number;
  readonly pages: number;
  readonly meter: LoadMeter;
}

async function latencies({ rounds, quick, meter = new LoadMeter() }: ManyOptions): Promise<Group> {
  const guests = quick ? 100 : GUESTS;
  // The first of them walks alone as well.
  const pages = (guests + 1) * TURN * (roundsMax(rounds) + 1);
  const turns = { guests, pages, meter };
  const handlers = CHandlers.compile(meter);
  const ours = await ourCrowds(turns);
  const others = typeof handlers === "string" ? undefined : await crowdsInC(handlers, turns);
  const lone = (crowd: Crowd) => () => ({
    ...times(Array.from({ length: guests }, () => crowd.touch(crowd.members.slice(0, 1), TURN)).flat()),
  });
  const inTurn = (crowd: Crowd) => () => ({ ...times(crowd.touch(crowd.members, TURN)) });
  const [one, amongMany, eachInTurn] = [
    "one guest",
    `one of ${guests}, the others idle`,
    `${guests} guests in turn`,
  ];
  try {
    const contestants = [
      { name: one, run: lone(ours.alone) },
      { name: amongMany, run: lone(ours.many) },
      { name: eachInTurn, run: inTurn(ours.many) },
    ];
    if (others !== undefined) {
      contestants.push({ name: `C: ${one}`, run: lone(others.alone) });
      contestants.push({ name: `C: ${eachInTurn}`, run: inTurn(others.many) });
    }
    const series = await alternate(contestants, rounds, meter);
    const ratio = (name: string, than = one): number => ratioOf(series, "p99", name, than);
    const inC = others && `the same in C: ${ratio(`C: ${eachInTurn}`, `C: ${one}`).toFixed(2)}`;
    return {
      title: "Many guests in one pager",
      columns: COLUMNS,
      ...measured(series),
      verdicts: [
        atMost(`p99 of a fault, one of ${guests} guests : one alone`, ratio(amongMany), 2),
        atMost(`p99 of a fault, ${guests} guests in turn : one alone`, ratio(eachInTurn), 2),
      ],
      notes: [
        `${TURN} faults at a time, ${guests * TURN} a round; time of the access as the guest sees it (rdtsc)`,
        `in turn: the first of ${TURN} faults finds neither guest nor pager in the CPU's caches; ${inC ?? handlers}`,
      ],
    };
  } finally {
    await ours.close();
    await others?.close();
    if (typeof handlers !== "string") await handlers.close();
  }
}

interface Crowds {
  readonly alone: Crowd;
  readonly many: Crowd;
  close(): Promise<void>;
}

/** A guest with a pager of its own, and many that share one. */
async function ourCrowds({ guests, pages, meter }: Turns): Promise<Crowds> {
  const image = makeImage(pages * PAGE);
  const placement = "auto";
  const pager = { image, plan: { faultAroundPages: 1 } };
  const alone = new Crowd({ guests: 1, pages, meter, pager: { ...pager, placement } });
  await alone.startEach(startPager);
  const host = await openPagerHost({ placement });
  const many = new Crowd({ guests, pages, recordPages: TURN, meter, pager });
  await many.start(host);
  const close = async (): Promise<void> => {
    await host.close();
    await Promise.all(alone.members.map(({ pager }) => pager.close()));
    await many.close();
    await alone.close();
    dropImage(image);
  };
  return { alone, many, close };
}

/** The same served by one thread in C, on the guests' own CPU. */
async function crowdsInC(handlers: CHandlers, { guests, pages, meter }: Turns): Promise<Crowds> {
  const [cpu = 0] = affinity(local);
  const descriptor = memfd(local, "minorfault-bench-image", pages * PAGE);
  const image = `/proc/${process.pid}/fd/${descriptor}`;
  const serve = async (count: number): Promise<Crowd> => {
    const crowd = new Crowd({
      guests: count,
      pages,
      recordPages: count === 1 ? pages : TURN,
      meter,
      pager: {},
    });
    const posts: Post[] = [];
    await crowd.startEach(async (_, place) => {
      posts.push({ ...place, cpu, image });
      return { threadId: 0, close: async () => undefined, ended: Promise.resolve() };
    });
    await handlers.serveCrowd(posts);
    return crowd;
  };
  const [alone, many] = [await serve(1), await serve(guests)];
  const end = async (): Promise<void> => {
    await handlers.stop();
    await many.close();
    await alone.close();
    close(local, descriptor);
  };
  return { alone, many, close: end };
}

// ── the same guest, with somebody who disturbs ──

async function disturbances({ rounds, quick, meter = new LoadMeter() }: ManyOptions): Promise<Group> {
  const pages = quick ? 2000 : 20_000;
  const turns = roundsMax(rounds) + 1;
  const image = makeImage(2 * pages * PAGE * turns);
  // The one beside hogs walks twice a round.
  const options = {
    guests: 1,
    pages: 2 * pages * turns,
    meter,
    pager: { image, plan: { faultAroundPages: 1 } },
  };
  const [quiet, hogged, littered] = [new Crowd(options), new Crowd(options), new Crowd(options)];
  const litter = new Litterer();
  await quiet.startEach((more) => startPager({ ...more, placement: "same-cpu" }));
  await hogged.startEach((more) => startPager({ ...more, placement: "same-cpu" }));
  await littered.startEach(async (more) => litter.serve(more));
  const walk = (crowd: Crowd): Record<string, number> => ({ ...times(crowd.touch(crowd.members, pages)) });
  const beside = (isPinned: boolean): Record<string, number> => {
    const end = hogged.hog(isPinned);
    const result = walk(hogged);
    end();
    return result;
  };
  try {
    const series = await alternate(
      [
        { name: "quiet", run: () => walk(quiet) },
        { name: "a CPU hog", run: () => beside(false) },
        { name: "a hog on the guest's own CPU", run: () => beside(true) },
        {
          name: "100 MB/s of garbage",
          run: () => {
            const [begin, before] = [performance.now(), litter.bytes];
            const result = walk(littered);
            const rate = (litter.bytes - before) / 1e3 / (performance.now() - begin);
            return { ...result, rate };
          },
        },
      ],
      rounds,
      meter,
    );
    const ratio = (name: string): number => ratioOf(series, "p999", name, "quiet");
    return {
      title: "Disturbed",
      columns: [...COLUMNS, { key: "rate", title: "MB/s", digits: 0 }],
      ...measured(series),
      verdicts: [
        atMost("p99.9 of a fault, a CPU hog : quiet", ratio("a CPU hog"), 5),
        atMost("p99.9 of a fault, garbage in the pager's isolate : quiet", ratio("100 MB/s of garbage"), 5),
      ],
      notes: [
        `${pages} faults a round, one guest; pager and guest on one CPU`,
        "a hog on that CPU takes its share of it from the guest, which waits for its turn, faults or not",
      ],
    };
  } finally {
    const members = [quiet, hogged, littered].flatMap((crowd) => crowd.members);
    await Promise.all(members.map(({ pager }) => pager.close()));
    await quiet.close();
    await hogged.close();
    await littered.close();
    dropImage(image);
  }
}

// ── what a guest costs ──

async function costs({ quick, meter = new LoadMeter() }: ManyOptions): Promise<Group> {
  meter.begin();
  const host = await openPagerHost({ placement: "auto" });
  try {
    const small = await memoryOfSmall(host, quick ? 100 : GUESTS, meter);
    const page = await memoryOfPages(host, 64 * GIB, meter);
    const ready: number[] = [];
    for (let time = 0; time < 5; time++) ready.push(await readyIn(host, 64 * GIB, meter));
    const readyMs = median(ready);
    const rows: Row[] = [
      { name: `${small.guests} guests of 2 MiB`, figures: { kib: small.kib, idle: small.idleUs } },
      { name: "a page of 64 GiB, all in use", figures: { bytes: page } },
      { name: "a guest of 64 GiB", figures: { ready: readyMs } },
    ];
    return {
      title: "What a guest costs its pager",
      columns: [
        { key: "kib", title: "KiB each", digits: 0 },
        { key: "idle", title: "idle µs/s", digits: 1 },
        { key: "bytes", title: "bytes", digits: 2 },
        { key: "ready", title: "ready in ms", digits: 2 },
      ],
      rows,
      verdicts: [
        atMost("memory of the daemon a small guest, KiB", small.kib, 1024),
        atMost("processor time of all idle guests, us a second", small.idleUs, 0),
        atMost("memory of the daemon a page of a guest, bytes", page, 2),
        atMost("a region of 64 GiB is ready in ms", readyMs, 10),
      ],
      notes: ["memory: what this process has of its own (RssAnon), the benchmark's part of it included"],
      rounds: 1,
      repeated: 0,
      load: [meter.end()],
    };
  } finally {
    await host.close();
  }
}

async function memoryOfSmall(host: PagerHost, guests: number, meter: LoadMeter) {
  const image = makeImage(2 * MIB);
  const crowd = new Crowd({ guests, pages: 512, meter, pager: { image } });
  try {
    const before = ownBytes();
    await crowd.start(host);
    for (const { pager } of crowd.members) await pager.installAll?.();
    const kib = (ownBytes() - before) / 1024 / guests;
    const { threadId } = crowd.members[0]!.pager;
    // What the last order has set off is over.
    await new Promise((resolve) => setTimeout(resolve, 100));
    const ran = ranNs(threadId);
    await new Promise((resolve) => setTimeout(resolve, 1000));
    return { guests, kib, idleUs: (ranNs(threadId) - ran) / 1000 };
  } finally {
    dropImage(image);
    await crowd.close();
  }
}

/** Bytes that this process has more for each page of a guest, when there is something to note of every one of them. */
async function memoryOfPages(host: PagerHost, byteLength: number, meter: LoadMeter): Promise<number> {
  const descriptor = memfd(local, "minorfault-bench-sparse", byteLength);
  const image: PagerImage = { descriptor, byteLength };
  const pages = byteLength / PAGE;
  const crowd = new Crowd({
    guests: 1,
    pages,
    recordPages: 1,
    features: ["EVENT_REMOVE"],
    meter,
    pager: { image },
  });
  try {
    const before = ownBytes();
    await crowd.start(host);
    const [member] = crowd.members;
    crowd.discard(member!);
    // Served after that has been noted.
    crowd.touch(crowd.members, 1);
    // As if all of it had been installed: nobody has as much memory to try it with.
    for (const { resident } of member!.pager.residency?.() ?? []) resident.fill(0xffff_ffff);
    return (ownBytes() - before) / pages;
  } finally {
    close(local, descriptor);
    await crowd.close();
  }
}

/** Milliseconds until a large guest is served, what outlives the pager included. */
async function readyIn(host: PagerHost, byteLength: number, meter: LoadMeter): Promise<number> {
  const descriptor = memfd(local, "minorfault-bench-sparse", byteLength);
  const image: PagerImage = { descriptor, byteLength };
  const stateDescriptor = memfd(local, "minorfault-bench-state", pagerStateBytes([{ byteLength }]));
  const crowd = new Crowd({
    guests: 1,
    pages: byteLength / PAGE,
    recordPages: 1,
    meter,
    pager: { image, stateDescriptor },
  });
  let ms = Number.NaN;
  try {
    await crowd.startEach(async (options) => {
      const begin = performance.now();
      const pager = await host.start(options);
      ms = performance.now() - begin;
      return pager;
    });
    return ms;
  } finally {
    close(local, descriptor);
    close(local, stateDescriptor);
    await crowd.close();
  }
}

function ownBytes(): number {
  const [, kib] = /^RssAnon:\s+(\d+) kB/m.exec(readFileSync("/proc/self/status", "latin1")) ?? [];
  return Number(kib) * 1024;
}

function ranNs(tid: number): number {
  return Number(readFileSync(`/proc/self/task/${tid}/schedstat`, "latin1").split(" ")[0]);
}
