// The words behind a verb, taken one by one by the verb that understands them.
//
// A verb first takes its flags and its options (`via=v`), which may stand anywhere, then its positional words;
// `end` complains about what nobody took. All of it happens when the case is parsed, so that a misspelled case
// is an error with a column and never a strange result.

import type { Scope } from "./scope.ts";
import type { Source, Word } from "./source.ts";
import { numberValue, type Place, placeValue, type Value } from "./values.ts";

export class Arguments {
  readonly scope: Scope;
  readonly #source: Source;
  readonly #verb: Word;
  #words: Word[];

  constructor(source: Source, scope: Scope, verb: Word, words: readonly Word[]) {
    this.#source = source;
    this.scope = scope;
    this.#verb = verb;
    this.#words = [...words];
  }

  fail(word: Word, expected: string): never {
    throw this.#source.error(word.at, `${expected} for ${this.#verb.text}`, word.text);
  }

  /** Takes the word if it is there. */
  flag(text: string): boolean {
    const index = this.#words.findIndex((word) => word.text === text);
    if (index >= 0) this.#words.splice(index, 1);
    return index >= 0;
  }

  /** Takes `name=value`, and answers the value with its position. */
  option(name: string): Word | undefined {
    const index = this.#words.findIndex((word) => word.text.startsWith(`${name}=`));
    if (index < 0) return undefined;
    const [word] = this.#words.splice(index, 1);
    const skipped = name.length + 1;
    return { text: word!.text.slice(skipped), at: word!.at + skipped };
  }

  /** `name=word` where the word is one of a few. */
  optionOf<const T extends string>(name: string, allowed: readonly T[]): T | undefined {
    const word = this.option(name);
    if (word === undefined) return undefined;
    const found = allowed.find((candidate) => candidate === word.text);
    return found ?? this.fail(word, `${name}=${allowed.join(" or ")}`);
  }

  optionNumber(name: string, names?: Readonly<Record<string, bigint | number>>): Value<bigint> | undefined {
    const word = this.option(name);
    return word === undefined ? undefined : this.#number(word, names);
  }

  optionPlace(name: string): Value<Place> | undefined {
    const word = this.option(name);
    return word === undefined ? undefined : this.#place(word);
  }

  /** The next positional word, if there is one. */
  next(): Word | undefined {
    return this.#words.shift();
  }

  require(expected: string): Word {
    return this.next() ?? this.missing(expected);
  }

  missing(expected: string): never {
    const last = this.#words.at(-1) ?? this.#verb;
    throw this.#source.error(last.at + last.text.length, `${expected} for ${this.#verb.text}`, "");
  }

  number(expected: string, names?: Readonly<Record<string, bigint | number>>): Value<bigint> {
    return this.#number(this.require(expected), names);
  }

  /** The next positional word as a place, or `otherwise` when there is none. */
  place(otherwise?: string): Value<Place> {
    const word = this.next();
    if (word !== undefined) return this.#place(word);
    if (otherwise === undefined) return this.missing("a place such as 0 or b[0,2)");
    return this.#place({ text: otherwise, at: this.#verb.at });
  }

  /** Takes the positional words that consist of these names joined by `|`; undefined when there are none. */
  bits(names: Readonly<Record<string, bigint | number>>): bigint | undefined {
    let sum: bigint | undefined;
    this.#words = this.#words.filter((word) => {
      const parts = word.text.split("|");
      if (!parts.every((part) => Object.hasOwn(names, part))) return true;
      for (const part of parts) sum = (sum ?? 0n) | BigInt(names[part]!);
      return false;
    });
    return sum;
  }

  /** The next positional word, left where it is. */
  peek(): Word | undefined {
    return this.#words[0];
  }

  /** Whether positional words are left. */
  rest(): boolean {
    return this.#words.length > 0;
  }

  end(): void {
    const word = this.next();
    if (word !== undefined) this.fail(word, "the end of the step");
  }

  #number(word: Word, names?: Readonly<Record<string, bigint | number>>): Value<bigint> {
    return (
      numberValue(word.text, names) ?? this.fail(word, "a number such as 8, 0x10, 1<<40 or $ALL_FEATURES")
    );
  }

  #place(word: Word): Value<Place> {
    const place = placeValue(word.text) ?? this.fail(word, "a place such as 0, [0,4), 1+0x123, b.2 or @top");
    if (place.area !== undefined && !this.scope.areas.has(place.area)) {
      this.fail(word, `an area that the case has set up (${[...this.scope.areas].join(", ")})`);
    }
    return place.value;
  }
}
