// A replay whose frames two threads verify, here both in one: whoever does it, nothing is installed that is wrong.

import assert from "node:assert/strict";
import { describe, type TestContext, test } from "node:test";
import { PAGE_SIZE } from "../../src/abi/memory.ts";
import { Random } from "../../src/base/random.ts";
import { addWorkingSet, buildImage, openImageIn } from "../../src/image/index.ts";
import { local } from "../../src/linux/index.ts";
import type { FaultLoop } from "../../src/pager/fault-loop.ts";
import type { FetchClient } from "../../src/pager/fetch/client.ts";
import { type FetchLink, REPLAY_BYTES, type ReplayEnd } from "../../src/pager/fetch/link.ts";
import { WIRE, WIRE_WORDS, type WireNews } from "../../src/pager/fetch/order.ts";
import { ProofsLeft } from "../../src/pager/fetch/proving.ts";
import { ReplaySlots } from "../../src/pager/fetch/replay-slots.ts";
import { Replayer } from "../../src/pager/fetch/replayer.ts";
import { Replays } from "../../src/pager/fetch/replays.ts";
import { slotsAt } from "../../src/pager/fetch/slots.ts";
import { errorOf } from "../../src/pager/notes.ts";
import { MemorySource } from "../../src/source/index.ts";
import { MemoryStore } from "../../src/source/memory-store.ts";
import { seedOf } from "../image/content.ts";

const PAGES = 1024;
const FRAME_PAGES = REPLAY_BYTES / PAGE_SIZE;
const FRAMES = 10;
const SLOTS = 5;
const SET = "boot";

interface Scene {
  readonly bytes: Uint8Array;
  readonly store: MemoryStore;
  /** In the order of the set. */
  readonly pages: readonly number[];
}

async function sceneOf(random: Random, wrongFrame: number | undefined): Promise<Scene> {
  const words = Uint32Array.from({ length: (PAGES * PAGE_SIZE) / 4 }, () => random.uint32());
  const bytes = new Uint8Array(words.buffer);
  const store = MemoryStore.empty();
  const source = new MemorySource(bytes);
  await buildImage(store, "it", { regions: [{ name: "ram", source }], codec: "none", dedup: "image" });
  const pages = [...random.sample(FRAMES * FRAME_PAGES, PAGES)];
  const set = await addWorkingSet(
    store,
    "it",
    SET,
    pages.map((page) => page * PAGE_SIZE),
  );
  if (wrongFrame !== undefined) {
    const key = `packs/${set.pack}`;
    const stored = await store.get(key, 2 ** 30);
    const at = set.listBytes + wrongFrame * REPLAY_BYTES + random.below(REPLAY_BYTES);
    stored[at]! ^= 1 << random.below(8);
    await store.put(key, stored);
  }
  return { bytes, store, pages };
}

interface Outcome {
  readonly end: ReplayEnd;
  /** In the order in which they were installed. */
  readonly placed: readonly number[];
  /** Frames that the thread which serves has verified. */
  readonly proven: number;
  readonly freeSlots: number;
}

/** Replays a set, the serving thread going on whenever it pleases. */
async function replay(t: TestContext, scene: Scene, random: Random, isAlone = true): Promise<Outcome> {
  const { bytes, store } = scene;
  const staging = local.share(SLOTS * REPLAY_BYTES);
  t.after(() => staging.close());
  const placed: number[] = [];
  const place = (_part: unknown, first: number, until: number, address: number): void => {
    const from = address - staging.address;
    const there = staging.bytes.subarray(from, from + (until - first) * PAGE_SIZE);
    const expected = bytes.subarray(first * PAGE_SIZE, until * PAGE_SIZE);
    assert.equal(Buffer.compare(there, expected), 0, `pages ${first} to ${until}`);
    for (let page = first; page < until; page++) placed.push(page);
  };
  const region = { imageOffset: 0, pageSize: PAGE_SIZE, pageCount: PAGES };
  const loop = {
    port: {},
    installer: { isPutOff: false, isGuestGone: false, place },
    regions: { parts: [{ start: 0, until: PAGES * PAGE_SIZE, firstPage: 0, region }] },
  } as unknown as FaultLoop;
  const ends: ReplayEnd[] = [];
  const onReplayed = (end: ReplayEnd): number => ends.push(end);
  const client = { loop, bytesReplayed: 0, options: { onReplayed } } as unknown as FetchClient;

  const words = new Int32Array(WIRE_WORDS);
  const pool = new ReplaySlots({ count: SLOTS, transitMax: SLOTS, giveBack: () => undefined });
  const link: FetchLink = {
    send: (request) => {
      if (request.kind === "free") pool.free(request.slot);
    },
    receive: () => undefined,
  };
  const room = { slots: 0 };
  const replays = new Replays({
    staging: staging.address,
    keptSlots: 0,
    room,
    link,
    words,
    isAlone: () => isAlone,
  });
  replays.add(client, SET, true);
  const goOn = (): void => {
    replays.install(REPLAY_BYTES);
    replays.settle();
  };
  const image = await openImageIn(store, "it");
  const replayer = new Replayer({
    image,
    workingSet: SET,
    slots: slotsAt(staging.address, REPLAY_BYTES),
    pool,
    proofs: new ProofsLeft(words),
    tell: (news: WireNews) => {
      if (news.kind === "piece" || news.kind === "replaying") replays.hear(news);
      if (news.kind !== "replayed") return;
      const { error, ...end } = news;
      replays.hear(error === undefined ? end : { ...end, error: errorOf(error) });
    },
    serve: (waits) => {
      while (waits && !pool.isAvailable) goOn();
      while (random.below(2) === 0) goOn();
      return true;
    },
  });
  await replayer.run();
  while (replays.isUnderWay) goOn();
  await image.close();
  assert.equal(ends.length, 1);
  assert.equal(words[WIRE.PROVES], 0, "nothing is left unproven when there is no replay");
  let freeSlots = 0;
  while (pool.take() !== undefined) freeSlots++;
  return { end: ends[0]!, placed, proven: words[WIRE.PROVEN]!, freeSlots };
}

describe("a replay that two threads verify", () => {
  test("everything is installed once, whoever has verified it", async (t) => {
    const seed = seedOf();
    t.diagnostic(`SEED=${seed}`);
    const random = new Random(seed);
    for (let round = 0; round < 8; round++) {
      const scene = await sceneOf(random, undefined);
      const { end, placed, proven, freeSlots } = await replay(t, scene, random);
      assert.deepEqual(end, { kind: "replayed", workingSet: SET });
      assert.deepEqual(placed, scene.pages);
      assert.equal(freeSlots, SLOTS);
      assert.ok(proven > 0 && proven <= FRAMES, `${proven} frames of ${FRAMES}`);
    }
  });

  test("a frame that is wrong ends it: nothing of that one is installed, nor of what comes behind it", async (t) => {
    const seed = seedOf();
    t.diagnostic(`SEED=${seed}`);
    const random = new Random(seed);
    const provers = new Set<boolean>();
    for (let round = 0; round < 24; round++) {
      const wrong = round % FRAMES;
      const scene = await sceneOf(random, wrong);
      const { end, placed, proven, freeSlots } = await replay(t, scene, random, round % 3 > 0);
      assert.equal(end.error?.code, "ERR_WRONG_BYTES");
      assert.match(
        end.error?.message ?? "",
        new RegExp(`^frame ${wrong} of working set ${SET} has the SHA-256`),
      );
      assert.deepEqual(placed, scene.pages.slice(0, wrong * FRAME_PAGES));
      assert.equal(freeSlots, SLOTS);
      provers.add(proven > 0);
    }
    assert.equal(provers.size, 2, "by either of them");
  });

  test("who has other guests to serve verifies nothing", async (t) => {
    const random = new Random(3);
    const scene = await sceneOf(random, undefined);
    const { placed, proven } = await replay(t, scene, random, false);
    assert.deepEqual(placed, scene.pages);
    assert.equal(proven, 0);
  });

  test("no more than two frames are left at once, and none while nobody asks for them", () => {
    const words = new Int32Array(WIRE_WORDS);
    const proofs = new ProofsLeft(words);
    assert.equal(proofs.isWelcome, false);
    words[WIRE.PROVES] = 1;
    for (let frame = 0; frame < 2; frame++) {
      assert.equal(proofs.isWelcome, true);
      proofs.leave();
    }
    assert.equal(proofs.isWelcome, false);
    words[WIRE.PROVEN] = 1;
    assert.equal(proofs.isWelcome, true);
    words[WIRE.PROVES] = 0;
    assert.equal(proofs.isWelcome, false);
  });
});
