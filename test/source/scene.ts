// What the tests of sources share: content from a seed, and the look at an error's code.

import assert from "node:assert/strict";
import { MinorfaultError } from "../../src/base/errors.ts";
import { Random } from "../../src/base/random.ts";

/** MINORFAULT_SEED, or a new one; printed either way. */
export function seedOf(): number {
  const seed = Number(process.env.MINORFAULT_SEED ?? Math.floor(Math.random() * 2 ** 32));
  console.log(`seed ${seed}`);
  return seed;
}

export function contentOf(seed: number, byteLength: number): Uint8Array {
  const random = new Random(seed);
  const words = new Uint32Array(Math.ceil(byteLength / 4));
  for (let index = 0; index < words.length; index++) words[index] = random.uint32();
  return new Uint8Array(words.buffer, 0, byteLength);
}

/** For `assert.rejects`: the error is of the catalogue and has this code. */
export function code(expected: string) {
  return (error: unknown): true => {
    assert.ok(error instanceof MinorfaultError, `not an error of the catalogue: ${error}`);
    assert.equal(error.code, expected, error.message);
    return true;
  };
}
