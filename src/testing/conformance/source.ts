// Text of cases with its origin, so that every complaint can say file:line:column and what was expected there.

import { MinorfaultError } from "../../base/errors.ts";

/** A word of a case and where it stands in the text. */
export interface Word {
  readonly text: string;
  readonly at: number;
}

export class Source {
  readonly name: string;
  readonly text: string;

  /** `name` is what errors call the text: a path, or the name of a section. */
  constructor(name: string, text: string) {
    this.name = name;
    this.text = text;
  }

  /** "file:line" of an offset. */
  line(at: number): string {
    return `${this.name}:${this.#position(at).line}`;
  }

  /** The error for something else than `expected` at an offset. */
  error(at: number, expected: string, found?: string): MinorfaultError {
    const { line, column } = this.#position(at);
    const got = found === undefined ? "" : `, found ${found === "" ? "nothing" : `"${found}"`}`;
    return new MinorfaultError("ERR_BAD_CASE", `${this.name}:${line}:${column}: expected ${expected}${got}`);
  }

  #position(at: number): { readonly line: number; readonly column: number } {
    const before = this.text.slice(0, at);
    const line = before.split("\n").length;
    return { line, column: at - before.lastIndexOf("\n") };
  }
}

/** Words of text[from, until), separated by white space (line ends of continued cases included), quotes kept whole. */
export function words(source: Source, from: number, until: number): Word[] {
  const found: Word[] = [];
  for (const match of source.text.slice(from, until).matchAll(/"[^"\n]*"|\S+/g)) {
    found.push({ text: match[0], at: from + match.index });
  }
  return found;
}
