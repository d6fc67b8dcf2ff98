// The codecs in both directions, by property.

import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import {
  decodeMessage,
  encodeMessage,
  IOC_NONE,
  ioc,
  pageRegion,
  pmScanArg,
  readSigned,
  readUnsigned,
  type Struct,
  UFFD_MSG_SIZE,
  type UffdMessage,
  uffdio,
  writeWord,
} from "../../src/abi/index.ts";

const seed = Number(process.env.SEED ?? Date.now() % 2 ** 31);
const parameters = { seed, numRuns: 500 };
console.log(`codec properties: SEED=${seed}`);

// deepEqual compares prototypes, and ours are plain objects.
const PLAIN = { noNullPrototype: true };
const u64 = fc.bigInt({ min: 0n, max: 2n ** 64n - 1n });
const address = fc.nat().chain((high) => fc.nat().map((low) => (high % 2 ** 21) * 2 ** 32 + low));
const u32 = fc.integer({ min: 0, max: 2 ** 32 - 1 });
const structs: readonly Struct<string>[] = [...Object.values(uffdio), pmScanArg, pageRegion];

test("every struct reads back what was written into it, at any offset", () => {
  for (const struct of structs) {
    const fields = Object.keys(struct.offset);
    const values = fc.record(Object.fromEntries(fields.map((field) => [field, u64])), PLAIN);
    fc.assert(
      fc.property(values, fc.nat(64), (written, at) => {
        const view = new DataView(new ArrayBuffer(struct.size + 64));
        struct.write(view, at, written);
        assert.deepEqual(struct.read(view, at), written);
      }),
      parameters,
    );
  }
});

test("a struct leaves alone the fields that are not given", () => {
  const view = new DataView(new Uint8Array(40).fill(0xee).buffer);
  uffdio.copy.write(view, 0, { dst: 1, mode: 0 });
  const { dst, src, mode, copy } = uffdio.copy.read(view);
  assert.deepEqual([dst, src, mode, copy], [1n, 0xeeeeeeeeeeeeeeeen, 0n, 0xeeeeeeeeeeeeeeeen]);
});

test("numbers and bigints are written as the same 64 bits, negative ones in two's complement", () => {
  const safe = fc.maxSafeInteger();
  fc.assert(
    fc.property(safe, (value) => {
      const view = new DataView(new ArrayBuffer(16));
      writeWord(view, 0, value);
      writeWord(view, 8, BigInt(value));
      assert.equal(view.getBigUint64(0, true), view.getBigUint64(8, true));
      assert.equal(readSigned(view, 0), value);
      if (value >= 0) assert.equal(readUnsigned(view, 0), value);
    }),
    parameters,
  );
});

test("every message reads back what was written, and its unused bytes are zero", () => {
  const message: fc.Arbitrary<UffdMessage> = fc.oneof(
    fc.record({ event: fc.constant("pagefault" as const), flags: fc.nat(15), address, ptid: u32 }, PLAIN),
    fc.record({ event: fc.constant("fork" as const), ufd: u32 }, PLAIN),
    fc.record({ event: fc.constant("remap" as const), from: address, to: address, len: address }, PLAIN),
    fc.record(
      { event: fc.constantFrom("remove" as const, "unmap" as const), start: address, end: address },
      PLAIN,
    ),
  );
  fc.assert(
    fc.property(message, (written) => {
      const clean = new DataView(new ArrayBuffer(UFFD_MSG_SIZE));
      const dirty = new DataView(new Uint8Array(UFFD_MSG_SIZE).fill(0xff).buffer);
      encodeMessage(clean, 0, written);
      encodeMessage(dirty, 0, written);
      assert.deepEqual(decodeMessage(dirty), written);
      assert.deepEqual(new Uint8Array(dirty.buffer), new Uint8Array(clean.buffer));
    }),
    parameters,
  );
});

test("any 32 bytes decode to a message or to undefined, never to an exception", () => {
  fc.assert(
    fc.property(fc.uint8Array({ minLength: 32, maxLength: 32 }), (bytes) => {
      decodeMessage(new DataView(bytes.buffer, bytes.byteOffset));
    }),
    parameters,
  );
});

test("ioctl numbers are unsigned and place each part where the kernel's macro does", () => {
  assert.equal(ioc(IOC_NONE, 0xaa, 0, 0), 0xaa00);
  assert.equal(ioc(3, 0xff, 0xff, 0x3fff), 0xffffffff);
});
