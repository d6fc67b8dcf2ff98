// What a verb of the case language is: a line of documentation and a compiler for the words behind it.

import type { Arguments } from "./arguments.ts";
import type { Action } from "./task.ts";

export interface Verb {
  /** The verb with its arguments, as docs/cases.md shows it. */
  readonly usage: string;
  /** What it does and says, in one sentence. */
  readonly about: string;
  readonly compile: (words: Arguments) => Action;
}

export type Verbs = Readonly<Record<string, Verb>>;
