// What can be known to be wrong before the system is asked (contract, LAW 2).

import { PAGE_SIZE, TASK_SIZE } from "../abi/memory.ts";
import { hex, MinorfaultError } from "../base/errors.ts";

/** A whole number from 0 to 2^53 - 1, or ERR_BAD_ARGUMENT / ERR_OUT_OF_RANGE. */
export function checkNumber(name: string, value: number): void {
  if (typeof value !== "number" || !Number.isInteger(value)) {
    throw new MinorfaultError("ERR_BAD_ARGUMENT", `${name} must be a whole number, got ${String(value)}`);
  }
  if (value < 0 || value > Number.MAX_SAFE_INTEGER) {
    throw new MinorfaultError("ERR_OUT_OF_RANGE", `${name} must lie between 0 and 2^53 - 1, got ${value}`);
  }
}

/** Bytes [start, start + byteLength) of user space; not necessarily aligned. */
export function checkBytes(name: string, start: number, byteLength: number): void {
  checkNumber(`${name} address`, start);
  checkNumber(`${name} length`, byteLength);
  if (byteLength === 0) {
    throw new MinorfaultError("ERR_OUT_OF_RANGE", `${name} length must be at least one byte`);
  }
  if (start + byteLength > TASK_SIZE) {
    throw new MinorfaultError(
      "ERR_OUT_OF_RANGE",
      `${name} range ${hex(start)} + ${byteLength} bytes ends beyond user space`,
      { address: start, byteLength },
    );
  }
}

/** Whole pages [start, start + byteLength) of user space. */
export function checkPages(name: string, start: number, byteLength: number): void {
  checkBytes(name, start, byteLength);
  if (start % PAGE_SIZE !== 0 || byteLength % PAGE_SIZE !== 0) {
    throw new MinorfaultError(
      "ERR_UNALIGNED",
      `${name} range ${hex(start)} + ${byteLength} bytes is not made of whole ${PAGE_SIZE}-byte pages`,
      { address: start, byteLength },
    );
  }
}
