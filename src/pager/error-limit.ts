// What an owner is told of errors: each of the first, then a few a second, with how many were left out in between. A source
// that fails for a million pages must not fill the owner's memory with messages.

import { MinorfaultError } from "../base/errors.ts";
import { type ErrorNote, noteOf } from "./notes.ts";

/** LIMIT: errors that are told at once, and how many more a second. */
export const ERRORS_AT_ONCE = 64;
export const ERRORS_PER_SECOND = 8;

export class ErrorLimit {
  readonly #tell: (note: ErrorNote) => void;
  readonly #now: () => number;
  #room = ERRORS_AT_ONCE;
  #lastMs: number;
  #leftOut = 0;

  constructor(tell: (note: ErrorNote) => void, now: () => number) {
    this.#tell = tell;
    this.#now = now;
    this.#lastMs = now();
  }

  report(error: MinorfaultError): void {
    const now = this.#now();
    const grown = ((now - this.#lastMs) / 1000) * ERRORS_PER_SECOND;
    this.#room = Math.min(ERRORS_AT_ONCE, this.#room + grown);
    this.#lastMs = now;
    if (this.#room < 1) {
      this.#leftOut++;
      return;
    }
    this.#room--;
    this.#tell({ ...noteOf(error), message: `${error.message}${this.#takeLeftOut()}` });
  }

  /** Nothing more will come: says what was left out at last. */
  end(): void {
    if (this.#leftOut === 0) return;
    const message = `${this.#leftOut} errors at the end were not told one by one`;
    this.#leftOut = 0;
    this.#tell(noteOf(new MinorfaultError("ERR_LIMIT", message)));
  }

  #takeLeftOut(): string {
    const count = this.#leftOut;
    this.#leftOut = 0;
    return count === 0 ? "" : ` (${count} errors before it were not told)`;
  }
}
