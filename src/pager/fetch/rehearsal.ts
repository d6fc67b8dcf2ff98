// Makes the code of a fetch hot before there is one: an image in memory is opened, read and replayed, again and again.
//
// That code which has not run before is slow is the lesser evil. Compiling it takes a CPU, at the very moment at which a
// guest begins: so it is gone through until the compiler has nothing left to do.

import { fileURLToPath } from "node:url";
import { PAGE_SIZE } from "../../abi/memory.ts";
import { Random } from "../../base/random.ts";
import { addWorkingSet, buildImage, type OpenedImage, openImageIn } from "../../image/index.ts";
import { FileSource, MemorySource, type PageSource } from "../../source/index.ts";
import { farSource, MemoryStore } from "../../source/memory-store.ts";
import { FetchAgent } from "./agent.ts";
import { REPLAY_BYTES } from "./link.ts";
import { RANK } from "./machine.ts";
import { ImageUnits, openUnits, RawUnits, type UnitReader } from "./opened-source.ts";
import { ReplaySlots } from "./replay-slots.ts";
import { Replayer } from "./replayer.ts";
import type { SlotMemory } from "./slots.ts";

const UNIT_BYTES = 64 * 1024;
const UNITS = 8;
const IMAGE_BYTES = UNITS * UNIT_BYTES;
const SET_PAGES = 96;
const NAME = "rehearsal";
const TIMES = 24;
/**
 * How often an image is opened, of those times. A thread opens one: that is done a few times, so that nothing of it is new,
 * and no more, since what is nearly hot is compiled when the guest's own image is opened, which takes a CPU for 4 ms.
 */
const OPENINGS = 4;

/** For the threads that read: opens, verifies, decompresses. */
export async function rehearseFetching(): Promise<void> {
  const staging = new Uint8Array(UNITS * UNIT_BYTES);
  for (const codec of ["zstd", "none"] as const) {
    const store = await rehearsalStore(codec);
    for (const each of [store, store.asFar()]) {
      for (let opening = 0; opening < OPENINGS; opening++) await rehearseImage(each, staging);
    }
  }
  await rehearseRaw(staging);
  await rehearseFile();
}

async function rehearsalStore(codec: "zstd" | "none"): Promise<MemoryStore> {
  const store = MemoryStore.empty();
  const random = new Random(1);
  // Half of each page is what it was before: something for zstd to find.
  const words = Uint32Array.from({ length: IMAGE_BYTES / 4 }, (_, at) => (at & 512 ? random.uint32() : 1));
  const source = new MemorySource(new Uint8Array(words.buffer));
  await buildImage(store, NAME, { regions: [{ name: NAME, source }], codec, level: 1, dedup: "image" });
  const pages = random.sample(SET_PAGES, IMAGE_BYTES / PAGE_SIZE);
  await addWorkingSet(
    store,
    NAME,
    NAME,
    Array.from(pages, (page) => page * PAGE_SIZE),
  );
  return store;
}

async function rehearseImage(store: MemoryStore, staging: Uint8Array): Promise<void> {
  const image = await openImageIn(store, NAME);
  for (let time = 0; time < TIMES / OPENINGS; time++) {
    await rehearseReplay(image, staging);
    await rehearseUnits(new ImageUnits(image, store, UNIT_BYTES), staging);
  }
  await image.close();
}

async function rehearseReplay(image: OpenedImage, staging: Uint8Array): Promise<void> {
  const pool = new ReplaySlots({ count: 2, transitMax: 2, giveBack: () => undefined });
  const replayer = new Replayer({
    image,
    workingSet: NAME,
    slots: slotsOf(staging, REPLAY_BYTES),
    pool,
    tell: (news) => {
      if (news.kind === "piece") pool.free(news.slot);
    },
    serve: () => true,
  });
  await replayer.run();
}

async function rehearseUnits(reader: UnitReader, staging: Uint8Array): Promise<void> {
  let left = UNITS;
  await new Promise<void>((resolve) => {
    const agent = new FetchAgent({
      reader,
      slots: slotsOf(staging, UNIT_BYTES),
      holes: new Uint32Array(1),
      readsMax: 1,
      tell: (news) => {
        if (news.kind === "end") left -= news.count;
        else if (news.kind === "ends") for (const { count } of news.ends) left -= count;
        if (left === 0) resolve();
      },
    });
    agent.learnFirst(UNITS);
    for (let unit = 0; unit < UNITS; unit++) {
      agent.handle({ kind: "fetch", ticket: unit + 1, unit, slot: unit, count: 1, rank: RANK.FAULT });
    }
    while (agent.work());
  });
}

/** Bytes that are not an image, from far away. */
async function rehearseRaw(staging: Uint8Array): Promise<void> {
  for (let time = 0; time < TIMES; time++) {
    const source = farSource(new MemorySource(new Uint8Array(IMAGE_BYTES)));
    await rehearseUnits(new RawUnits(source, UNIT_BYTES), staging);
  }
}

function slotsOf(staging: Uint8Array, slotBytes: number): SlotMemory {
  return (slot, count = 1) => staging.subarray(slot * slotBytes, (slot + count) * slotBytes);
}

/** Where images lie mostly. Any file will do: it is looked for as an image, and then opened as it is. */
async function rehearseFile(): Promise<void> {
  const path = fileURLToPath(import.meta.url);
  for (let time = 0; time < TIMES; time++) {
    for (const descriptor of [{ url: path }, { module: import.meta.url, argument: path }]) {
      const units = await openUnits(descriptor, UNIT_BYTES);
      units.readSync(0, new Uint8Array(UNIT_BYTES));
      await units.close();
    }
  }
}

/** As a module that gives a source. */
export async function openSource(path: string): Promise<PageSource> {
  return FileSource.open(path);
}
