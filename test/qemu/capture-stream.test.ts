// Streams that come from a running machine: pages in any order and again, sources that fail, and a capture that is
// given up.

import assert from "node:assert/strict";
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { MinorfaultError } from "../../src/base/errors.ts";
import { Random } from "../../src/base/random.ts";
import { type CaptureStreamOptions, captureStream, readMachine } from "../../src/guest/qemu/index.ts";
import { openImageIn, verifyImage } from "../../src/image/index.ts";
import { seedOf } from "../image/content.ts";
import { MemoryStore } from "../image/memory-store.ts";
import { randomMachine, streamOf, type TestMachine } from "./streams.ts";

const folder = mkdtempSync(join(tmpdir(), "minorfault-capture-test-"));
after(() => rmSync(folder, { recursive: true }));

const FACTS = { saved: "running", qemu: "7.2.22" } as const;

/** A stream in pieces; after each one others have the thread, as with a socket. */
async function* pieces(stream: Uint8Array, random: Random, fail?: { at: number; error: Error }) {
  for (let at = 0; at < stream.byteLength; ) {
    if (fail !== undefined && at >= fail.at) throw fail.error;
    const piece = stream.slice(
      at,
      Math.min(at + 1 + random.below(50_000), fail?.at ?? Number.POSITIVE_INFINITY),
    );
    yield piece;
    at += piece.byteLength;
    if (random.below(3) === 0) await new Promise<void>((resolve) => setImmediate(resolve));
  }
}

function capture(
  store: MemoryStore,
  stream: AsyncIterable<Uint8Array>,
  options: Partial<CaptureStreamOptions> = {},
) {
  return captureStream(store, "vm", stream, { facts: FACTS, temporaryFolder: folder, ...options });
}

async function check(store: MemoryStore, machine: TestMachine): Promise<void> {
  const image = await openImageIn(store, "vm");
  const { machine: saved } = await readMachine(image);
  for (const [index, { name, region }] of saved.blocks.entries()) {
    const { offset, byteLength } = image.regions.find((each) => each.name === region)!;
    const bytes = new Uint8Array(byteLength);
    await image.read(offset, bytes);
    assert.ok(Buffer.compare(bytes, machine.memory[index]!) === 0, `block ${name}`);
  }
  assert.deepEqual({ qemu: saved.qemu, saved: saved.saved }, FACTS as { qemu: string; saved: string });
  await image.close();
}

test("whatever order pages come in, and however often, the image has the last of each", async (context) => {
  const seed = seedOf();
  context.diagnostic(`SEED=${seed}`);
  const random = new Random(seed);
  let revisedBytes = 0;
  for (let round = 0; round < 40; round++) {
    const machine = randomMachine(random, 300);
    const isLive = random.below(3) > 0;
    const stream = streamOf(machine, random, { isLive, isBackground: random.below(3) === 0 });
    const store = new MemoryStore();
    const isPatient = random.below(2) === 0;
    const chunkBytes = 4096 << random.below(6);
    const report = await capture(store, pieces(stream, random), { chunkBytes, isPatient });
    revisedBytes += report.revisedBytes;
    assert.equal(report.streamBytes, stream.byteLength);
    await check(store, machine);
    assert.deepEqual((await verifyImage(store, "vm")).problems, []);
  }
  assert.ok(revisedBytes > 0, "some chunks were read twice");
  assert.deepEqual(readdirSync(folder), [], "no temporary file is left");
});

test("a second capture of a machine that stood still stores next to nothing, and says so", async () => {
  const random = new Random(51);
  const machine = randomMachine(random, 3000);
  const stream = streamOf(machine, random);
  const store = new MemoryStore();
  const first = await capture(store, pieces(stream, random));
  const second = await captureStream(store, "again", pieces(stream, random), {
    facts: FACTS,
    temporaryFolder: folder,
  });
  assert.ok(first.chunks.stored > 0);
  assert.equal(second.chunks.stored, 0);
  assert.ok(second.writtenBytes < first.writtenBytes / 10, `${second.writtenBytes} of ${first.writtenBytes}`);
});

test("a capture that fails leaves the store as it was, whoever failed", async () => {
  const random = new Random(52);
  const machine = randomMachine(random, 1000);
  const stream = streamOf(machine, random, { isLive: true });
  const store = new MemoryStore();
  await capture(store, pieces(stream, random));
  const before = new Map(store.objects);
  const unchanged = () => assert.deepEqual([...store.objects.keys()].sort(), [...before.keys()].sort());

  const broken = new Error("the connection broke");
  for (const at of [0, 100, stream.byteLength >> 1, stream.byteLength - 1]) {
    await assert.rejects(capture(store, pieces(stream, random, { at, error: broken })), broken);
    unchanged();
  }
  for (const length of [0, 7, 60, 5000, stream.byteLength - 1]) {
    await assert.rejects(capture(store, pieces(stream.subarray(0, length), random)), {
      code: "ERR_SOURCE_SHORT",
    });
    unchanged();
  }
  const refused = new MinorfaultError("ERR_QEMU", "The migration ended as failed");
  await assert.rejects(
    capture(store, pieces(stream, random), { confirmed: () => Promise.reject(refused) }),
    refused,
  );
  unchanged();

  const controller = new AbortController();
  const reason = new Error("Ctrl-C");
  const aborted = capture(store, pieces(stream, random), {
    signal: controller.signal,
    onBytes: (byteLength) => {
      if (byteLength > stream.byteLength / 3) controller.abort(reason);
    },
  });
  await assert.rejects(aborted, reason);
  unchanged();

  const full = new Error("no space left");
  store.beforeChange = ({ op }) => {
    if (op === "put") throw full;
  };
  await assert.rejects(capture(store, pieces(stream, random), { ifAbsent: false }), full);
  store.beforeChange = () => {};
  unchanged();
  await check(store, machine);
  assert.deepEqual(readdirSync(folder), []);
});
