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

/** An object with settings: null, or a value where settings belong, is ERR_BAD_ARGUMENT. */
export function checkOptions(name: string, options: object): void {
  if (typeof options !== "object" || options === null) {
    throw new MinorfaultError("ERR_BAD_ARGUMENT", `${name} takes an object, got ${String(options)}`);
  }
}

/** One of a few names. */
export function checkOneOf(name: string, value: string, allowed: readonly string[]): void {
  if (!allowed.includes(value)) {
    const names = allowed.join(", ");
    throw new MinorfaultError("ERR_BAD_ARGUMENT", `${name} is one of ${names}, got ${String(value)}`);
  }
}

/** A time in milliseconds; -1 (or any other negative number) is for ever. */
export function checkTimeout(timeoutMs: number): void {
  if (typeof timeoutMs !== "number" || Number.isNaN(timeoutMs)) {
    throw new MinorfaultError("ERR_BAD_ARGUMENT", `A timeout is a number of ms, got ${String(timeoutMs)}`);
  }
}
