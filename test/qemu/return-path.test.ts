// The return path: every message as it was written, in any pieces, and nothing believed that cannot be.

import assert from "node:assert/strict";
import { test } from "node:test";
import { MinorfaultError } from "../../src/base/errors.ts";
import { Random } from "../../src/base/random.ts";
import { encodeReturnMessage, type ReturnMessage, ReturnPathReader } from "../../src/guest/qemu/index.ts";
import { seedOf } from "../image/content.ts";
import { concat } from "./streams.ts";

function randomMessage(random: Random): ReturnMessage {
  const block = "x".repeat(1 + random.below(255));
  switch (random.below(7)) {
    case 0:
      return { kind: "shut", code: random.uint32() };
    case 1:
      return { kind: "pong", value: random.uint32() };
    case 2:
      return { kind: "request", block, start: random.below(2 ** 40) * 4096, byteLength: 4096 };
    case 3:
      return { kind: "request", block: undefined, start: random.below(2 ** 40) * 4096, byteLength: 2 ** 21 };
    case 4:
      return {
        kind: "received",
        block,
        bitmap: Uint8Array.from({ length: 8 * (1 + random.below(600)) }, () => random.below(256)),
      };
    case 5:
      return { kind: "resumed", value: 1 };
    default:
      return { kind: "switchover" };
  }
}

test("messages are read as they were written, in pieces of any size", (context) => {
  const seed = seedOf();
  context.diagnostic(`SEED=${seed}`);
  const random = new Random(seed);
  for (let round = 0; round < 100; round++) {
    const messages = Array.from({ length: 1 + random.below(20) }, () => randomMessage(random));
    const bytes = concat(...messages.map(encodeReturnMessage));
    const reader = new ReturnPathReader();
    const read: ReturnMessage[] = [];
    const piecesMax = 1 + random.below(2000);
    for (let at = 0; at < bytes.byteLength; ) {
      const piece = bytes.subarray(at, at + 1 + random.below(piecesMax));
      reader.push(piece);
      for (let message = reader.read(); message !== undefined; message = reader.read()) {
        read.push(
          message.kind === "received" ? { ...message, bitmap: new Uint8Array(message.bitmap) } : message,
        );
      }
      at += piece.byteLength;
    }
    assert.deepEqual(read, messages);
    assert.deepEqual([reader.pendingBytes, reader.offset], [0, bytes.byteLength]);
  }
});

test("a message that has not come wholly is waited for, byte by byte", () => {
  const random = new Random(4);
  for (let round = 0; round < 40; round++) {
    const message = randomMessage(random);
    const bytes = encodeReturnMessage(message);
    const reader = new ReturnPathReader();
    for (const byte of bytes.subarray(0, -1)) {
      reader.push(Uint8Array.of(byte));
      assert.equal(reader.read(), undefined);
    }
    reader.push(bytes.subarray(-1));
    assert.equal(reader.read()?.kind, message.kind);
  }
});

function message(type: number, byteLength: number, body: readonly number[] = []): Uint8Array {
  return Uint8Array.of(type >> 8, type & 255, byteLength >> 8, byteLength & 255, ...body);
}

const end = [0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef];

/** What must not be believed, the code, and words of the message. */
const REFUSALS: readonly [string, Uint8Array, string, ...string[]][] = [
  ["type 0", message(0, 4), "ERR_STREAM_FEATURE", "type 0"],
  ["a type that is not known", message(8, 0), "ERR_STREAM_FEATURE", "type 8"],
  ["a SHUT of 8 bytes", message(1, 8), "ERR_BAD_MESSAGE", "SHUT has 8"],
  ["a PONG without a value", message(2, 0), "ERR_BAD_MESSAGE", "PONG has 0"],
  ["a request of 11 bytes", message(4, 11), "ERR_BAD_MESSAGE", "REQ_PAGES has 11"],
  ["a request without a name", message(3, 13), "ERR_BAD_MESSAGE", "REQ_PAGES_ID has 13"],
  ["an endless request", message(3, 0xffff), "ERR_BAD_MESSAGE", "65535"],
  [
    "a name that is longer than its message",
    message(3, 14, [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 16, 0, 9, 97]),
    "ERR_BAD_MESSAGE",
    "name of 9",
  ],
  [
    "a name that is shorter than its message",
    message(3, 15, [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 16, 0, 1, 97, 97]),
    "ERR_BAD_MESSAGE",
    "name of 1",
  ],
  ["a name that is no text", message(5, 3, [2, 0xff, 0xfe]), "ERR_BAD_MESSAGE", "UTF-8"],
  ["a bitmap of nothing", message(5, 2, [1, 97, 0, 0, 0, 0, 0, 0, 0, 0]), "ERR_BAD_MESSAGE", "0 bytes"],
  ["a bitmap of 7 bytes", message(5, 2, [1, 97, 0, 0, 0, 0, 0, 0, 0, 7]), "ERR_BAD_MESSAGE", "7 bytes"],
  [
    "a bitmap of 4 GiB",
    message(5, 2, [1, 97, 0, 0, 0, 1, 0, 0, 0, 0]),
    "ERR_BAD_MESSAGE",
    "4294967296 bytes",
  ],
  [
    "a bitmap without its mark",
    message(5, 2, [1, 97, 0, 0, 0, 0, 0, 0, 0, 8, ...Array(8).fill(255), ...end.with(7, 0)]),
    "ERR_BAD_MESSAGE",
    "mark",
  ],
];

for (const [what, bytes, code, ...words] of REFUSALS) {
  test(`the return path refuses ${what}, with the offset`, () => {
    const reader = new ReturnPathReader();
    // Something good first, so that the offset is not 0.
    reader.push(concat(encodeReturnMessage({ kind: "pong", value: 1 }), bytes));
    assert.equal(reader.read()?.kind, "pong");
    const refused = (thrown: unknown) => {
      assert.ok(thrown instanceof MinorfaultError, String(thrown));
      assert.equal(thrown.code, code, thrown.message);
      for (const word of ["offset ", ...words]) assert.ok(thrown.message.includes(word), thrown.message);
      return true;
    };
    assert.throws(() => reader.read(), refused);
    reader.push(encodeReturnMessage({ kind: "pong", value: 2 }));
    assert.throws(() => reader.read(), refused, "what comes behind it is not read either");
  });
}
