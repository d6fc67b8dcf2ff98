// Where written pages go when a memory is flushed: into the file, through a journal, or into the image of the same name,
// whose manifest is replaced when all of its new chunks are stored. Either way a crash leaves the old or the new.

import { MinorfaultError } from "../../base/errors.ts";
import type { PageSource } from "../../source/index.ts";
import type { Content } from "./content.ts";
import { type PieceReader, writeThroughJournal } from "./journal.ts";
import type { ByteRange } from "./ranges.ts";

export interface FlushTarget {
  /**
   * Whether the pager reads the new content from now on. The image that a pager has opened stays what it was: there
   * flushed pages go on being kept like written ones.
   */
  readonly isSeenByPager: boolean;
  write(ranges: readonly ByteRange[], read: PieceReader): Promise<void>;
}

/** Throws ERR_STORE_READ_ONLY where there is nowhere to write. */
export function flushTarget(content: Content): FlushTarget {
  const { path, image } = content;
  if (path !== undefined) {
    return {
      isSeenByPager: true,
      write: (ranges, read) => writeThroughJournal(path, ranges, read),
    };
  }
  if (image === undefined || /^https?:/i.test(image.store)) {
    throw new MinorfaultError("ERR_STORE_READ_ONLY", `${content.name} can't be written back`, {
      hint: "Write-back works on local files and on images in a folder or a bucket",
    });
  }
  return {
    isSeenByPager: false,
    write: (ranges, read) => writeImage(image.store, image.name, ranges, read),
  };
}

async function writeImage(
  storeUrl: string,
  name: string,
  ranges: readonly ByteRange[],
  read: PieceReader,
): Promise<void> {
  const { buildImage, openImageIn } = await import("../../image/index.ts");
  const { openStore } = await import("../../source/index.ts");
  const store = await openStore(storeUrl);
  try {
    const parent = await openImageIn(store, name);
    const regions = parent.regions.map(({ name, guestAddress, pageSize, offset, byteLength }) => ({
      name,
      guestAddress,
      pageSize,
      source: memorySource(name, offset, byteLength, read),
      changed: changedWithin(ranges, offset, byteLength),
    }));
    await parent.close();
    await buildImage(store, name, { regions, parent: name });
  } finally {
    await store.close();
  }
}

function changedWithin(
  ranges: readonly ByteRange[],
  offset: number,
  byteLength: number,
): { start: number; until: number }[] {
  return ranges
    .map((range) => ({
      start: Math.max(0, range.offset - offset),
      until: Math.min(byteLength, range.offset + range.byteLength - offset),
    }))
    .filter(({ start, until }) => start < until);
}

/** A region of the memory, as the builder reads it. */
function memorySource(name: string, offset: number, byteLength: number, read: PieceReader): PageSource {
  const readSync = (at: number, target: Uint8Array): void => target.set(read(offset + at, target.byteLength));
  return {
    name,
    byteLength,
    readSync,
    read: async (at, target) => readSync(at, target),
    close: async () => undefined,
  };
}
