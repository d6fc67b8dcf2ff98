// SHA-256, which names everything in an image.

import * as crypto from "node:crypto";
import { HASH_BYTES } from "./limits.ts";

type OneShot = (algorithm: string, bytes: Uint8Array, encoding: "buffer") => Buffer;
/** Node 20.12 has it; it costs half of what a hash object does where the content is small. */
const oneShot = (crypto as unknown as { hash?: OneShot }).hash;

export function sha256(bytes: Uint8Array): Uint8Array {
  if (oneShot !== undefined) return oneShot("sha256", bytes, "buffer");
  return crypto.createHash("sha256").update(bytes).digest();
}

export function toHex(hash: Uint8Array): string {
  return Buffer.from(hash.buffer, hash.byteOffset, hash.byteLength).toString("hex");
}

export function fromHex(text: string): Uint8Array {
  return new Uint8Array(Buffer.from(text, "hex"));
}

/** Whether the hash is the one that lies at `offset` of `bytes`. */
export function isHashAt(hash: Uint8Array, bytes: Uint8Array, offset: number): boolean {
  for (let index = 0; index < HASH_BYTES; index++) {
    if (hash[index] !== bytes[offset + index]) return false;
  }
  return true;
}
