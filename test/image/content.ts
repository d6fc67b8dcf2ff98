// Memory for tests: sparse, from a seed, with pages that are zeros, alike, compressible and not.

import type { Random } from "../../src/base/random.ts";

export const PAGE = 4096;

export function seedOf(environment: NodeJS.ProcessEnv = process.env): number {
  return Number(environment.SEED ?? Math.floor(Math.random() * 2 ** 32)) >>> 0;
}

/** About a third zeros, a third compressible, a third random; some pages are repeated. */
export function sparseBytes(random: Random, byteLength: number): Uint8Array {
  const bytes = new Uint8Array(byteLength);
  for (let at = 0; at < byteLength; ) {
    const until = Math.min(byteLength, at + (1 + random.below(24)) * PAGE);
    const kind = random.below(4);
    const part = bytes.subarray(at, until);
    if (kind === 1) part.fill(1 + random.below(255));
    if (kind === 2) for (let index = 0; index < part.length; index++) part[index] = random.uint32();
    if (kind === 3)
      for (let index = 0; index < part.length; index++) part[index] = (index * 7) >> (index % 5);
    at = until;
  }
  return bytes;
}

/** Changes some bytes here and there; answers which ranges. */
export function scribble(
  random: Random,
  bytes: Uint8Array,
  times: number,
): { start: number; until: number }[] {
  return Array.from({ length: times }, () => {
    const start = random.below(bytes.byteLength);
    const until = Math.min(bytes.byteLength, start + 1 + random.below(3 * PAGE));
    if (random.below(4) === 0) bytes.fill(0, start, until);
    else for (let at = start; at < until; at++) bytes[at] = random.uint32();
    return { start, until };
  });
}

/** 16 bytes that differ from call to call, the same for the same seed. */
export function seededNonce(random: Random): () => Uint8Array {
  return () => Uint8Array.from({ length: 16 }, () => random.below(256));
}
