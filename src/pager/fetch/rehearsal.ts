// Makes the code of a fetch hot before there is one: an image in memory is opened, read and replayed, again and again.
//
// That code which has not run before is slow is the lesser evil. Compiling it takes a CPU, at the very moment at which a
// guest begins: so it is gone through until the compiler has nothing left to do.

import { once } from "node:events";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { MessageChannel, type MessagePort } from "node:worker_threads";
import { type OpenedImage, openImageIn } from "../../image/index.ts";
import { close, local, munmap, pipe } from "../../linux/index.ts";
import { FileSource, MemorySource, type PageSource } from "../../source/index.ts";
import { farSource, type MemoryStore } from "../../source/memory-store.ts";
import { FetchAgent } from "./agent.ts";
import { REPLAY_BYTES } from "./link.ts";
import { RANK } from "./machine.ts";
import { GATHERED_MAX, ImageUnits, openUnits, RawUnits, type UnitReader } from "./opened-source.ts";
import {
  type FetchWorkOrder,
  type OpenedMessage,
  type OpenedSource,
  WIRE,
  WIRE_WORDS,
  type WireNews,
  type WireRequest,
} from "./order.ts";
import { ProofsLeft } from "./proving.ts";
import {
  REHEARSAL,
  RehearsalFiles,
  type RehearsalImage,
  rehearsalStore,
  UNIT_BYTES,
  UNITS,
} from "./rehearsal-image.ts";
import { ReplaySlots } from "./replay-slots.ts";
import { Replayer } from "./replayer.ts";
import type { SlotMemory } from "./slots.ts";

const CODECS = ["zstd", "none"] as const;
const TIMES = 48;
/**
 * How often an image is opened, of those times. A thread opens one: that is done a few times, so that nothing of it is new,
 * and no more, since what is nearly hot is compiled when the guest's own image is opened, which takes a CPU for 4 ms.
 */
const OPENINGS = 4;
const FAR_TIMES = 6;
const FAR_BYTES = 64 * UNIT_BYTES;
/**
 * How often units of files are read, of small chunks: as many as it takes until all of that has been compiled, and no more. What
 * is left for the collector to do, it does while a guest begins, and it throws compiled code away.
 */
const READS = 300;
const SMALL_CHUNKS: { readonly chunkBytes: number; readonly units: number } = { chunkBytes: 4096, units: 2 };

/** For a thread that fetches: opens, verifies, decompresses, replays, from here and from afar. */
export async function rehearseFetching(): Promise<void> {
  const staging = new Uint8Array(UNITS * UNIT_BYTES);
  for (const codec of CODECS) {
    const store = await rehearsalStore({ codec });
    for (const each of [store, store.asFar()]) {
      for (let opening = 0; opening < OPENINGS; opening++) await rehearseImage(each, staging);
    }
    await rehearseFiles(codec, staging);
  }
  await rehearseRaw(staging);
  await rehearseFile(staging);
}

/** For one that serves: of all that it only reads what is at hand, in files. */
export async function rehearseReading(): Promise<void> {
  const staging = new Uint8Array(UNITS * UNIT_BYTES);
  for (const codec of CODECS) await rehearseFiles(codec, staging);
}

async function rehearseImage(store: MemoryStore, staging: Uint8Array): Promise<void> {
  const image = await openImageIn(store, REHEARSAL);
  for (let time = 0; time < TIMES / OPENINGS; time++) {
    await rehearseReplay(image, staging, time % 2 === 0);
    await rehearseUnits(new ImageUnits(image, store, UNIT_BYTES), staging);
  }
  await image.close();
}

/** `isHelped`: somebody else verifies what he can. */
async function rehearseReplay(image: OpenedImage, staging: Uint8Array, isHelped: boolean): Promise<void> {
  const words = new Int32Array(WIRE_WORDS);
  words[WIRE.PROVES] = isHelped ? 1 : 0;
  const pool = new ReplaySlots({ count: 2, transitMax: 2, giveBack: () => undefined });
  const replayer = new Replayer({
    image,
    workingSet: REHEARSAL,
    slots: slotsOf(staging, REPLAY_BYTES),
    pool,
    proofs: new ProofsLeft(words),
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
        left -= unitsOf(news);
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
    const source = farSource(new MemorySource(staging));
    await rehearseUnits(new RawUnits(source, UNIT_BYTES), staging);
  }
}

/** As a folder has it, which is most often read: by the code that reads files, again and again. */
async function rehearseFiles(codec: RehearsalImage["codec"], staging: Uint8Array): Promise<void> {
  const files = await RehearsalFiles.of(await rehearsalStore({ codec, ...SMALL_CHUNKS }));
  try {
    const reader = files.openUnits();
    for (let time = 0; reader !== undefined && time < READS; time++) {
      const unit = time % SMALL_CHUNKS.units;
      reader.readSync(unit, staging.subarray(unit * UNIT_BYTES, (unit + 1) * UNIT_BYTES));
    }
    await reader?.close();
  } finally {
    files.end();
  }
}

function slotsOf(staging: Uint8Array, slotBytes: number): SlotMemory {
  return (slot, count = 1) => staging.subarray(slot * slotBytes, (slot + count) * slotBytes);
}

/** Where images lie mostly. Any file will do: it is looked for as an image, and then opened as it is. */
async function rehearseFile(staging: Uint8Array): Promise<void> {
  const path = fileURLToPath(import.meta.url);
  for (let time = 0; time < TIMES; time++) {
    for (const descriptor of [{ url: path }, { module: import.meta.url, argument: path }]) {
      const units = await openUnits(descriptor, UNIT_BYTES);
      units.readSync(0, staging.subarray(0, UNIT_BYTES));
      await units.close();
    }
  }
}

/** As a module that gives a source: a file, or so many bytes that are far away. */
export async function openSource(what: string | number): Promise<PageSource> {
  if (typeof what === "string") return FileSource.open(what);
  const source = farSource(new MemorySource(new Uint8Array(what)));
  const read: PageSource["read"] = async (offset, target, signal) => {
    await sleep(1, undefined, signal && { signal });
    await source.read(offset, target, signal);
  };
  return { ...source, read };
}

/** What a thread that fetches does for its owner. */
export type FetchWork = (order: FetchWorkOrder, say: (message: OpenedMessage) => void) => Promise<void>;

/** All that is done for a source that has to be waited for: its opening, some faults, and a run of units. */
export async function rehearseFar(work: FetchWork): Promise<void> {
  for (let time = 0; time < FAR_TIMES; time++) {
    const { port1, port2 } = new MessageChannel();
    const [reader, bellFd] = pipe();
    const words = new Int32Array(new SharedArrayBuffer(WIRE_WORDS * 4));
    const source = { module: import.meta.url, argument: FAR_BYTES };
    const slots = 2 * GATHERED_MAX;
    const order = { source, unitBytesMin: UNIT_BYTES, replay: false, slots, fetchesMax: 1, sweeps: true };
    let opened: OpenedSource | undefined;
    try {
      await work({ ...order, keptSlots: 0, words, port: port2, bellFd }, (message) => {
        if (message.kind === "opened") ({ opened } = message);
      });
      await askFor(port1, [[0, 1]]);
      await askFor(port1, [
        [2, 1],
        [8, GATHERED_MAX],
      ]);
    } finally {
      Atomics.store(words, WIRE.STOP, 1);
      port1.postMessage({ kind: "end" } satisfies WireRequest);
      if (opened === undefined) {
        port1.close();
      } else {
        // Nothing else keeps a thread that has nothing to do.
        port1.ref();
        await once(port1, "close");
        munmap(local, opened.staging, opened.stagingBytes);
      }
      close(local, reader);
      close(local, bellFd);
    }
  }
}

/** Asks for so many units each, and waits until they have come. */
async function askFor(
  port: MessagePort,
  runs: readonly (readonly [unit: number, count: number])[],
): Promise<void> {
  let left = runs.reduce((sum, [, count]) => sum + count, 0);
  let hear: (news: WireNews) => void;
  const hasAll = new Promise<void>((resolve) => {
    hear = (news) => {
      left -= unitsOf(news);
      if (left === 0) resolve();
    };
    port.on("message", hear);
  });
  for (const [unit, count] of runs) {
    const rank = count === 1 ? RANK.FAULT : RANK.BACKGROUND;
    port.postMessage({ kind: "fetch", ticket: unit, unit, slot: unit, count, rank } satisfies WireRequest);
  }
  await hasAll;
  port.off("message", hear!);
}

function unitsOf(news: WireNews): number {
  const ends = news.kind === "ends" ? news.ends : news.kind === "end" ? [news] : [];
  return ends.reduce((sum, { count }) => sum + count, 0);
}
