// Pages as they come out of an image: their bytes, and which of them are nothing but zeros and need not be carried.

import { PAGE_BYTES } from "./stream-format.ts";

const ZEROS = Buffer.alloc(PAGE_BYTES);

/** Pages that follow one another in a block; numbers are those of the image's flat space. */
export interface PageRange {
  readonly first: number;
  readonly count: number;
}

export interface PageContent extends PageRange {
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

/** Runs of pages that are all zeros, or all something else. */
export function* runsOf({
  first,
  count,
  bytes,
  zeros,
}: PageContent): Generator<PageRange & { readonly bytes: Uint8Array | undefined }> {
  for (let index = 0; index < count; ) {
    let until = index + 1;
    while (until < count && zeros[until] === zeros[index]) until++;
    const part = zeros[index] === 1 ? undefined : bytes.subarray(index * PAGE_BYTES, until * PAGE_BYTES);
    yield { first: first + index, count: until - index, bytes: part };
    index = until;
  }
}

/** Most pages differ from zeros in their first or last byte, and are not looked at further. */
function isZeroPage(content: Uint8Array, at: number): boolean {
  if (content[at] !== 0 || content[at + PAGE_BYTES - 1] !== 0) return false;
  return ZEROS.compare(content, at, at + PAGE_BYTES) === 0;
}
