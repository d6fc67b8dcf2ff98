// Arguments of system calls: 64 bits each, of which a call takes what it needs.

import type { Word } from "../../abi/structs.ts";

const TWO_64 = 2 ** 64;

/** As an address or a length. Above 2^53 the nearest double: such a value is only ever found to be too large. */
export function unsigned(word: Word): number {
  if (typeof word === "bigint") return Number(BigInt.asUintN(64, word));
  return word < 0 ? word + TWO_64 : word;
}

/** As an int: the low 32 bits, signed. */
export function int(word: Word): number {
  return typeof word === "bigint" ? Number(BigInt.asIntN(32, word)) : word | 0;
}

/** As a long. */
export function signed(word: Word): number {
  return typeof word === "bigint" ? Number(BigInt.asIntN(64, word)) : word;
}
