// One block as a disk cache stores it.
//
//   0   "minorfault block\n" padded with zeros to 32 bytes
//   32  SHA-256 of all that follows
//   64  length of the key in UTF-8, 4 bytes little-endian; the key
//   ..  the bytes
//
// The key is inside so that a block can't stand for another one, whatever moved it.

import { createHash } from "node:crypto";

const MAGIC = Buffer.alloc(32);
MAGIC.write("minorfault block\n");
const HASH_BYTES = 32;
const BODY = MAGIC.byteLength + HASH_BYTES;

export function encodeBlock(key: string, bytes: Uint8Array): Uint8Array {
  const name = Buffer.from(key);
  const block = Buffer.alloc(BODY + 4 + name.byteLength + bytes.byteLength);
  MAGIC.copy(block);
  block.writeUInt32LE(name.byteLength, BODY);
  name.copy(block, BODY + 4);
  block.set(bytes, BODY + 4 + name.byteLength);
  createHash("sha256").update(block.subarray(BODY)).digest().copy(block, MAGIC.byteLength);
  return block;
}

/** The bytes of a block, or undefined when it is damaged, another one, or of another length. */
export function decodeBlock(stored: Uint8Array, key: string, byteLength: number): Uint8Array | undefined {
  const block = Buffer.from(stored.buffer, stored.byteOffset, stored.byteLength);
  const name = Buffer.from(key);
  const start = BODY + 4 + name.byteLength;
  if (block.byteLength !== start + byteLength) return undefined;
  if (!block.subarray(0, MAGIC.byteLength).equals(MAGIC)) return undefined;
  if (block.readUInt32LE(BODY) !== name.byteLength) return undefined;
  if (!block.subarray(BODY + 4, start).equals(name)) return undefined;
  const hash = createHash("sha256").update(block.subarray(BODY)).digest();
  if (!hash.equals(block.subarray(MAGIC.byteLength, BODY))) return undefined;
  return block.subarray(start);
}
