// What arguments stand for once a case runs: numbers that may name a mask of the kernel's release, and places.
//
// A value is a function of the actor that performs the step, because areas lie where the case put them and
// masks depend on the release (masks.ts).

import { TASK_SIZE } from "../../abi/memory.ts";
import type { Actor } from "./actor.ts";
import { isMaskName } from "./masks.ts";

export type Value<T> = (actor: Actor) => T;

/** A stretch of memory; 64-bit values that no address space has are allowed, cases ask for them. */
export interface Place {
  readonly address: bigint;
  readonly byteLength: number;
  /** Bytes of a page there. */
  readonly pageBytes: number;
}

/** Literal addresses that cases speak of by name. */
const NAMED: Readonly<Record<string, bigint>> = {
  // Above vm.mmap_min_addr, below everything that is ever mapped.
  bad: 0x10000n,
  null: 0n,
  "@top": BigInt(TASK_SIZE),
  "@kernel": 0xffff_8880_0000_0000n,
  // The last page of the 64-bit space: one page from here wraps to 0.
  "@wrap": 0xffff_ffff_ffff_f000n,
};

const NUMBER = /^(-?(?:0x[0-9a-f]+|\d+)|\$[A-Z0-9_]+)(?:<<(\d+))?$/;
const PLACE =
  /^(?:([a-z][a-z0-9]*)(?:\.(\d+)|\[(\d+),(\d+)\))?|(\d+)|\[(\d+),(\d+)\))(?:\+(0x[0-9a-f]+|\d+))?$/;

/** "0x10", "1<<40", "1|$UNKNOWN_MODE", a name of `names`; undefined when the text is no such thing. */
export function numberValue(text: string, names: Readonly<Record<string, bigint | number>> = {}) {
  const terms: Value<bigint>[] = [];
  for (const term of text.split("|")) {
    const named = names[term];
    const match = NUMBER.exec(term);
    if (named !== undefined) terms.push(() => BigInt(named));
    else if (match !== null && isTerm(match[1]!)) terms.push(termValue(match[1]!, BigInt(match[2] ?? 0)));
    else return undefined;
  }
  return (actor: Actor) => terms.reduce((sum, term) => sum | term(actor), 0n);
}

function isTerm(atom: string): boolean {
  return !atom.startsWith("$") || isMaskName(atom);
}

function termValue(atom: string, shift: bigint): Value<bigint> {
  if (atom.startsWith("$")) return (actor) => BigInt(actor.mask(atom)) << shift;
  const negative = atom.startsWith("-");
  const value = BigInt(negative ? atom.slice(1) : atom) << shift;
  return () => (negative ? -value : value);
}

/** What a place is called before it is known where its area lies. */
export interface PlaceSyntax {
  /** Undefined for a literal address. */
  readonly area: string | undefined;
  readonly value: Value<Place>;
}

/** "2", "[0,4)", "1+0x123", "b", "b.3", "b[0,2)", "b+8", "@0x7000", "@top", "bad"; undefined when it is none. */
export function placeValue(text: string): PlaceSyntax | undefined {
  const named = NAMED[text] ?? literal(text);
  if (named !== undefined) {
    const value = (actor: Actor) => {
      const pageBytes = actor.pageBytes("a");
      return { address: named, byteLength: pageBytes, pageBytes };
    };
    return { area: undefined, value };
  }
  const match = PLACE.exec(text);
  if (match === null) return undefined;
  const [, name, pageOf, firstOf, untilOf, page, first, until, plus] = match;
  const area = name ?? "a";
  const start = pageOf ?? firstOf ?? page ?? first;
  const end = untilOf ?? until;
  if (end !== undefined && Number(end) < Number(start)) return undefined;
  return {
    area,
    value(actor) {
      const { base, pages } = actor.area(area);
      const unit = actor.pageBytes(area);
      const index = Number(start ?? 0);
      const whole = start === undefined && plus === undefined;
      const count = end === undefined ? (whole ? pages : 1) : Number(end) - index;
      return {
        address: BigInt(base + index * unit + Number(plus ?? 0)),
        byteLength: count * unit,
        pageBytes: unit,
      };
    },
  };
}

function literal(text: string): bigint | undefined {
  return /^@0x[0-9a-f]{1,16}$/.test(text) ? BigInt(text.slice(1)) : undefined;
}

/** A place page by page: the address it begins at, and those of the pages after it. */
export function pageAddresses({ address, byteLength, pageBytes }: Place): number[] {
  const start = Number(address);
  const count = Math.max(1, Math.ceil(byteLength / pageBytes));
  return Array.from({ length: count }, (_, index) => start + index * pageBytes);
}
