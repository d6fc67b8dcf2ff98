// Pages as they come out of an image: their bytes, and which of them are nothing but zeros and need not be carried.

import { PAGE_BYTES } from "./stream-format.ts";

const ZEROS = Buffer.alloc(PAGE_BYTES);

/** Pages that follow one another in a block; numbers are those of the image's flat space. */
export interface PageRange {
  readonly first: number;
  readonly count: number;
}

/** Pages that are all zeros (no bytes), or all something else. */
export interface Pages extends PageRange {
  /** Themselves, or records of them that are ready to be sent (page-records.ts). */
  readonly bytes: Uint8Array | undefined;
  /** Bytes from one to the next: PAGE_BYTES, or RECORD_BYTES. */
  readonly stride: number;
}

export interface PageContent extends Pages {
  /** What lies in the places of zeros may be anything. */
  readonly bytes: Uint8Array;
  /** 1 for each page that is zeros. */
  readonly zeros: Uint8Array;
  /** Gives the memory back: nobody reads it any more. */
  release(): void;
}

/** Notes which pages of the content are zeros. */
export function findZeros(content: Uint8Array, zeros: Uint8Array): void {
  for (let at = 0, index = 0; at < content.byteLength; at += PAGE_BYTES, index++) {
    zeros[index] = isZeroPage(content, at) ? 1 : 0;
  }
}

/** Runs of pages of one kind. */
export function* runsOf(content: PageContent): Generator<Pages> {
  for (let index = 0; index < content.count; ) {
    const run = runAt(content, index, content.count);
    yield run;
    index += run.count;
  }
}

/** The run that begins with the content's page `index`: at most so many pages. */
export function runAt(
  { first, count, bytes, stride, zeros }: PageContent,
  index: number,
  max: number,
): Pages {
  const end = Math.min(count, index + max);
  let until = index + 1;
  while (until < end && zeros[until] === zeros[index]) until++;
  const part = zeros[index] === 1 ? undefined : bytes.subarray(index * stride, until * stride);
  return { first: first + index, count: until - index, bytes: part, stride };
}

/** Those of the pages from `first` up to, not including, `until`. */
export function pagesWithin(pages: Pages, first: number, until: number): Pages {
  const { stride } = pages;
  const bytes = pages.bytes?.subarray((first - pages.first) * stride, (until - pages.first) * stride);
  return { first, count: until - first, bytes, stride };
}

/** Most pages differ from zeros in their first or last byte, and are not looked at further. */
export function isZeroPage(content: Uint8Array, at: number): boolean {
  if (content[at] !== 0 || content[at + PAGE_BYTES - 1] !== 0) return false;
  return ZEROS.compare(content, at, at + PAGE_BYTES) === 0;
}
