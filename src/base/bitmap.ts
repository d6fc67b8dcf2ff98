// A set of small integers as bits: bit i of the set is bit i % 32 of word i / 32.
//
// Plain functions over a Uint32Array, so that the words may lie in memory that two threads share: one writes,
// others look.

/** Words that hold so many bits. */
export function wordsFor(bits: number): number {
  return (bits + 31) >>> 5;
}

export function hasBit(words: Uint32Array, index: number): boolean {
  return ((words[index >>> 5]! >>> (index & 31)) & 1) !== 0;
}

/** Sets the bits from `first` up to, not including, `until`. */
export function setBits(words: Uint32Array, first: number, until: number): void {
  for (let index = first; index < until; ) {
    const word = index >>> 5;
    const next = Math.min(until, (word + 1) << 5);
    words[word]! |= mask(index, next);
    index = next;
  }
}

/** Clears the bits from `first` up to, not including, `until`. */
export function clearBits(words: Uint32Array, first: number, until: number): void {
  for (let index = first; index < until; ) {
    const word = index >>> 5;
    const next = Math.min(until, (word + 1) << 5);
    words[word]! &= ~mask(index, next);
    index = next;
  }
}

/** The first set bit at or after `from`, or `until` when there is none before it. */
export function nextSet(words: Uint32Array, from: number, until: number): number {
  return next(words, from, until, 0);
}

/** The first clear bit at or after `from`, or `until` when there is none before it. */
export function nextClear(words: Uint32Array, from: number, until: number): number {
  return next(words, from, until, -1);
}

/** The start of the run of clear bits that ends before `until`, not looking below `from`. */
export function clearRunStart(words: Uint32Array, from: number, until: number): number {
  return runStart(words, from, until, 0);
}

/** The start of the run of set bits that ends before `until`, not looking below `from`. */
export function setRunStart(words: Uint32Array, from: number, until: number): number {
  return runStart(words, from, until, -1);
}

/** How many of the first `bits` bits are set. */
export function countBits(words: Uint32Array, bits: number): number {
  let count = 0;
  for (let word = 0; word < bits >>> 5; word++) count += ones(words[word]!);
  if ((bits & 31) !== 0) count += ones(words[bits >>> 5]! & ((1 << (bits & 31)) - 1));
  return count;
}

/** How many bits are set from `first` up to, not including, `until`. */
export function countBetween(words: Uint32Array, first: number, until: number): number {
  let count = 0;
  for (let index = first; index < until; ) {
    const word = index >>> 5;
    const next = Math.min(until, (word + 1) << 5);
    count += ones(words[word]! & mask(index, next));
    index = next;
  }
  return count;
}

/** Bits first % 32 up to until, which lie in one word. */
function mask(first: number, until: number): number {
  return (-1 << (first & 31)) & (-1 >>> -(until & 31));
}

function next(words: Uint32Array, from: number, until: number, invert: 0 | -1): number {
  if (from >= until) return until;
  const last = (until - 1) >>> 5;
  let word = from >>> 5;
  let bits = (words[word]! ^ invert) & (-1 << (from & 31));
  while (bits === 0) {
    if (word === last) return until;
    bits = words[++word]! ^ invert;
  }
  return Math.min(until, (word << 5) + 31 - Math.clz32(bits & -bits));
}

function runStart(words: Uint32Array, from: number, until: number, invert: 0 | -1): number {
  if (until <= from) return until;
  const first = from >>> 5;
  let word = (until - 1) >>> 5;
  // The bits that end the run: those of the other colour, below `until`.
  let bits = (words[word]! ^ invert) & (-1 >>> -(until & 31));
  while (bits === 0) {
    if (word === first) return from;
    bits = words[--word]! ^ invert;
  }
  return Math.max(from, (word << 5) + 32 - Math.clz32(bits));
}

function ones(word: number): number {
  let bits = word - ((word >>> 1) & 0x55555555);
  bits = (bits & 0x33333333) + ((bits >>> 2) & 0x33333333);
  return Math.imul((bits + (bits >>> 4)) & 0x0f0f0f0f, 0x01010101) >>> 24;
}
