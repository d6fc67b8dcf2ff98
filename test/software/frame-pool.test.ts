// Physical memory: allocation, counting, zeroing, growth and limits, against a model.

import assert from "node:assert/strict";
import { test } from "node:test";
import { FramePool, HUGE_FRAMES, ZERO_FRAME } from "../../src/uffd/software/frame-pool.ts";
import { PAGE, random, seed } from "./machine.ts";

const MIB = 2 ** 20;

const filled = (pool: FramePool, frame: number, length = PAGE): boolean =>
  pool.bytes.subarray(frame * PAGE, frame * PAGE + length).every((byte) => byte === 0);

test("frames keep their bytes while the pool grows, and are zero when that was asked for", (t) => {
  const start = seed();
  t.diagnostic(`seed ${start}`);
  const next = random(start);
  const pool = new FramePool(64 * MIB, 8);
  const held = new Map<number, number>();
  let growths = 0;
  pool.onGrow.add(() => growths++);
  for (let step = 0; step < 30_000; step++) {
    if (next(5) < 3) {
      const zeroed = next(2) === 0;
      const frame = zeroed ? pool.allocateZeroed() : pool.allocate();
      assert.ok(frame > ZERO_FRAME && !held.has(frame), `seed ${start}: frame ${frame}`);
      if (zeroed) assert.ok(filled(pool, frame), `seed ${start}: frame ${frame} is dirty`);
      const tag = next(255) + 1;
      pool.bytes.fill(tag, frame * PAGE, (frame + 1) * PAGE);
      held.set(frame, tag);
    } else {
      const [frame] = [...held.keys()].slice(next(Math.max(1, held.size)));
      if (frame === undefined) continue;
      assert.equal(pool.bytes[frame * PAGE + next(PAGE)], held.get(frame), `seed ${start}: frame ${frame}`);
      pool.release(frame);
      held.delete(frame);
    }
    assert.equal(pool.used, held.size);
  }
  assert.ok(growths > 3, `the pool grew ${growths} times`);
  assert.ok(filled(pool, ZERO_FRAME) && filled(pool, pool.zeroTwin));
});

test("a shared frame is free only when its last user has gone", () => {
  const pool = new FramePool(MIB, 0);
  const frame = pool.allocate();
  pool.share(frame);
  pool.release(frame);
  assert.equal(pool.users(frame), 1);
  assert.equal(pool.used, 1);
  pool.release(frame);
  assert.equal(pool.used, 0);
  assert.equal(pool.allocate(), frame);
});

test("memory and huge pages end at their limits, and come back", () => {
  const pool = new FramePool(4 * MIB, 1);
  const huge = pool.allocateHuge();
  assert.equal(huge % HUGE_FRAMES, 0);
  assert.equal(pool.allocateHuge(), 0);
  const frames: number[] = [];
  for (let frame = pool.allocate(); frame !== 0; frame = pool.allocate()) frames.push(frame);
  // All but the zero page and its twin.
  assert.equal(frames.length, 1024 - HUGE_FRAMES - 2);
  assert.equal(new Set(frames).size, frames.length);
  pool.bytes.fill(1, huge * PAGE, (huge + HUGE_FRAMES) * PAGE);
  pool.releaseHuge(huge);
  assert.equal(pool.allocateHuge(), huge);
  assert.ok(filled(pool, huge, HUGE_FRAMES * PAGE));
});

test("a pool that reserves its memory never moves", () => {
  const pool = new FramePool(64 * MIB, 0, true);
  const { bytes } = pool;
  assert.equal(bytes.length, 64 * MIB);
  for (let count = 0; count < 10_000; count++) assert.notEqual(pool.allocate(), 0);
  assert.equal(pool.bytes, bytes);
});
