// Memory as a guest has it, from a seed: zeros, text, pointers, structures, and a little that no codec can shrink.

import { Random } from "../src/base/random.ts";

const PAGE = 4096;
const WORDS =
  "page fault region guest memory image chunk install resident kernel thread wake copy zero source index pack".split(
    " ",
  );

/** A quarter of it zeros, in runs of pages. */
export function guestMemory(byteLength: number, seed: number): Uint8Array {
  const random = new Random(seed);
  const bytes = new Uint8Array(byteLength);
  const fillers = [fillText, fillPointers, fillPointers, fillStructures, fillStructures, fillNoise];
  for (let at = 0; at < byteLength; ) {
    const until = Math.min(byteLength, at + (1 + random.below(64)) * PAGE);
    const kind = random.below(8);
    if (kind < fillers.length) fillers[kind]!(bytes.subarray(at, until), random);
    at = until;
  }
  return bytes;
}

function fillText(part: Uint8Array, random: Random): void {
  const encoder = new TextEncoder();
  for (let at = 0; at < part.byteLength; ) {
    const { written } = encoder.encodeInto(`${WORDS[random.below(WORDS.length)]} `, part.subarray(at));
    at += Math.max(1, written);
  }
}

/** Addresses of one heap: the high half always the same. */
function fillPointers(part: Uint8Array, random: Random): void {
  const words = new Uint32Array(part.buffer, part.byteOffset, part.byteLength / 4);
  for (let word = 0; word < words.length; word += 2) {
    words[word] = random.below(2 ** 22) * 16;
    words[word + 1] = 0x7f3a;
  }
}

/** Records of 64 bytes of which few differ. */
function fillStructures(part: Uint8Array, random: Random): void {
  const words = new Uint32Array(part.buffer, part.byteOffset, part.byteLength / 4);
  for (let word = 0; word < words.length; word++) {
    const field = word % 16;
    words[word] = field === 0 ? word : field < 3 ? random.uint32() : field * 0x01010101;
  }
}

function fillNoise(part: Uint8Array, random: Random): void {
  const words = new Uint32Array(part.buffer, part.byteOffset, part.byteLength / 4);
  for (let word = 0; word < words.length; word++) words[word] = random.uint32();
}
