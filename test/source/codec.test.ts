// zstd: both implementations read each other, and nothing but what was expected is ever decoded.

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { test } from "node:test";
import { MinorfaultError } from "../../src/base/errors.ts";
import { Random } from "../../src/base/random.ts";
import {
  type CodecImplementation,
  codec,
  compress,
  DECODED_BYTES_MAX,
  decompress,
} from "../../src/source/index.ts";
import { hasZstd, ZstdNative, zstdFunctions } from "../../src/source/zstd-native.ts";
import { code, contentOf, seedOf } from "./scene.ts";

const seed = seedOf();

function isHere(implementation: CodecImplementation): boolean {
  try {
    codec(implementation);
    return true;
  } catch (error) {
    code("ERR_FEATURE_MISSING")(error);
    return false;
  }
}

const IMPLEMENTATIONS = (["node:zlib", "zstd-wasm"] as const).filter(isHere);

/** Compressible by a random amount, of a random length: zeros, text and noise. */
function sample(random: Random): Uint8Array {
  const bytes = new Uint8Array(random.below(200_000));
  const noisy = random.below(bytes.byteLength + 1);
  bytes.set(contentOf(random.uint32(), noisy));
  for (let at = 0; at + 7 < bytes.byteLength; at += 1 + random.below(5000))
    bytes.set(Buffer.from("minor"), at);
  return bytes;
}

test("this Node's own zstd is chosen where it has one", () => {
  const [major = 0, minor = 0] = process.versions.node.split(".").map(Number);
  const hasOwn = major > 23 || (major === 23 && minor >= 8) || (major === 22 && minor >= 15);
  assert.equal(codec().implementation, hasOwn ? "node:zlib" : "zstd-wasm");
});

for (const writer of IMPLEMENTATIONS) {
  for (const reader of IMPLEMENTATIONS) {
    test(`what ${writer} wrote ${reader} reads, at every level`, () => {
      const random = new Random(seed);
      for (let level = 1; level <= 19; level++) {
        const bytes = sample(random);
        const frame = codec(writer).compress(bytes, level);
        const back = codec(reader).decompress(frame, bytes.byteLength);
        assert.ok(Buffer.compare(back, bytes) === 0, `seed ${seed}, level ${level}`);
      }
    });
  }
}

test("Node's own zstd is used by its handles, and where they are not what they were by its functions", (t) => {
  if (!hasZstd()) return t.skip("this Node has no zstd");
  const native = ZstdNative.open();
  assert.ok(native !== undefined, "the handles are those of zstd-native.ts");
  const random = new Random(seed);
  for (let round = 0; round < 50; round++) {
    const bytes = sample(random);
    const level = 1 + random.below(4);
    const frames: Uint8Array[] = [native, zstdFunctions].map((one) => one.compress(bytes, level));
    const damaged = frames[0]!.map((byte, at) => (at > 12 && at % 7 === round % 7 ? byte ^ 255 : byte));
    for (const one of [native, zstdFunctions]) {
      for (const frame of frames) {
        const back = new Uint8Array(bytes.byteLength);
        assert.equal(one.decompressInto(frame, back), back.byteLength);
        assert.ok(Buffer.compare(back, bytes) === 0, `seed ${seed}`);
      }
    }
    // What fails leaves nothing behind for the next one.
    try {
      native.decompressInto(damaged, new Uint8Array(bytes.byteLength));
    } catch {
      // Mostly.
    }
  }
});

test("lengths at the edges of the header's encodings come back", () => {
  for (const byteLength of [0, 1, 255, 256, 257, 65_535, 65_536, 65_791, 65_792, 65_793, 131_072, 131_073]) {
    for (const implementation of IMPLEMENTATIONS) {
      const bytes = contentOf(byteLength, byteLength);
      const { compress, decompress } = codec(implementation);
      const frame = compress.call(codec(implementation), bytes);
      const back = decompress.call(codec(implementation), frame, byteLength);
      assert.ok(Buffer.compare(back, bytes) === 0, `${byteLength} bytes by ${implementation}`);
    }
  }
});

test("a result is the caller's: the next call does not change it", () => {
  for (const implementation of IMPLEMENTATIONS) {
    const one = codec(implementation);
    const first = one.decompress(one.compress(contentOf(1, 1000)), 1000);
    one.decompress(one.compress(contentOf(2, 100_000)), 100_000);
    assert.ok(Buffer.compare(first, contentOf(1, 1000)) === 0);
  }
});

test("the zstd program reads what we wrote, and we read what it wrote with a known size", (t) => {
  if (spawnSync("zstd", ["--version"]).error !== undefined) return t.skip("zstd is not installed");
  const bytes = Buffer.from(sample(new Random(seed)));
  const theirs = spawnSync("zstd", ["-dc"], { input: compress(bytes), maxBuffer: 2 ** 24 });
  assert.ok(bytes.equals(theirs.stdout), theirs.stderr.toString());
  const args = ["-c", "--no-check", `--stream-size=${bytes.byteLength}`];
  const frame = spawnSync("zstd", args, { input: bytes, maxBuffer: 2 ** 24 }).stdout;
  assert.ok(bytes.equals(decompress(frame, bytes.byteLength)));
  const checked = spawnSync("zstd", ["-c", "--check", `--stream-size=${bytes.byteLength}`], {
    input: bytes,
  }).stdout;
  assert.ok(bytes.equals(decompress(checked, bytes.byteLength)));
});

test("a frame of another size than expected is refused by its header: smaller, larger, a bomb", () => {
  const bomb = compress(new Uint8Array(DECODED_BYTES_MAX));
  assert.ok(bomb.byteLength < 20_000);
  for (const implementation of IMPLEMENTATIONS) {
    const before = process.memoryUsage().rss;
    for (const expected of [0, 4096, 65_536, DECODED_BYTES_MAX - 1]) {
      assert.throws(() => codec(implementation).decompress(bomb, expected), code("ERR_SOURCE_CORRUPT"));
    }
    assert.ok(
      process.memoryUsage().rss - before < DECODED_BYTES_MAX / 2,
      "it was decoded before it was refused",
    );
  }
  assert.throws(() => decompress(bomb, DECODED_BYTES_MAX + 1), code("ERR_OUT_OF_RANGE"));
  assert.throws(() => decompress(bomb, -1), code("ERR_OUT_OF_RANGE"));
});

test("a header that lies about the size, either way, is caught when the blocks say otherwise", () => {
  const bytes = contentOf(3, 5000);
  const frame = compress(bytes);
  const declaredAt = findDeclared(frame, 5000);
  for (const lie of [4999, 5001, 60_000]) {
    const forged = frame.slice();
    new DataView(forged.buffer).setUint16(declaredAt, lie - 256, true);
    for (const implementation of IMPLEMENTATIONS) {
      assert.throws(
        () => codec(implementation).decompress(forged, lie),
        code("ERR_SOURCE_CORRUPT"),
        `${lie}`,
      );
    }
  }
});

function findDeclared(frame: Uint8Array, byteLength: number): number {
  const view = new DataView(frame.buffer, frame.byteOffset, frame.byteLength);
  for (const at of [5, 6]) if (view.getUint16(at, true) + 256 === byteLength) return at;
  throw new Error("The size is not where it was expected");
}

test("two frames, a frame with a tail, a skippable frame, none at all: refused", () => {
  const frame = compress(contentOf(4, 1000));
  const half = compress(contentOf(4, 500));
  const skippable = Uint8Array.of(0x50, 0x2a, 0x4d, 0x18, 1, 0, 0, 0, 7);
  const inputs = [
    Buffer.concat([frame, frame]),
    Buffer.concat([half, half]),
    Buffer.concat([frame, Buffer.from([0])]),
    Buffer.concat([skippable, frame]),
    new Uint8Array(0),
    contentOf(5, 100),
  ];
  for (const implementation of IMPLEMENTATIONS) {
    for (const input of inputs) {
      assert.throws(() => codec(implementation).decompress(input, 1000), code("ERR_SOURCE_CORRUPT"));
    }
  }
});

test("random damage ends in the right length or in ERR_SOURCE_CORRUPT, and the codec works on", () => {
  const random = new Random(seed);
  const bytes = sample(random).slice(0, 50_000);
  const frame = compress(bytes);
  for (const implementation of IMPLEMENTATIONS) {
    for (let count = 0; count < 500; count++) {
      const damaged = damage(frame, random);
      try {
        assert.equal(
          codec(implementation).decompress(damaged, bytes.byteLength).byteLength,
          bytes.byteLength,
        );
      } catch (error) {
        assert.ok(error instanceof MinorfaultError, `seed ${seed}, ${implementation}, ${count}: ${error}`);
        assert.equal(error.code, "ERR_SOURCE_CORRUPT");
      }
    }
    const back = codec(implementation).decompress(frame, bytes.byteLength);
    assert.ok(Buffer.compare(back, bytes) === 0);
  }
});

function damage(frame: Uint8Array, random: Random): Uint8Array {
  if (random.below(4) === 0) return frame.slice(0, random.below(frame.byteLength));
  const damaged = frame.slice();
  for (let flips = 1 + random.below(4); flips > 0; flips--) {
    const at = random.below(random.below(2) === 0 ? Math.min(32, damaged.byteLength) : damaged.byteLength);
    damaged[at] = (damaged[at] ?? 0) ^ (1 << random.below(8));
  }
  return damaged;
}

test("levels and lengths that can't be are refused as the caller's mistake", () => {
  for (const level of [0, 20, -1, 1.5, Number.NaN]) {
    assert.throws(() => compress(new Uint8Array(1), level), code("ERR_BAD_ARGUMENT"));
  }
});
