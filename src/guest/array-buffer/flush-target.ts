// Where written pages go when a memory is flushed: into the file, through a journal, or into the image of the same name,
// whose manifest is replaced when all of its new chunks are stored. Either way a crash leaves the old or the new.

import { MinorfaultError } from "../../base/errors.ts";
import type { BuildRegion, Manifest } from "../../image/index.ts";
import type { PageSource } from "../../source/index.ts";
import type { Content } from "./content.ts";
import { writeThroughJournal } from "./journal.ts";
import type { PieceReader } from "./memory-reader.ts";
import type { ByteRange } from "./ranges.ts";

export interface FlushTarget {
  /**
   * Whether the pager reads the new content from now on. The image that a pager has opened stays what it was: there
   * flushed pages go on being kept like written ones.
   */
  readonly isSeenByPager: boolean;
  /** Answers what belonged to the content and could not be kept. */
  write(ranges: readonly ByteRange[], read: PieceReader): Promise<readonly string[]>;
}

/** Throws ERR_STORE_READ_ONLY where there is nowhere to write. */
export function flushTarget(content: Content): FlushTarget {
  const { path, image } = content;
  if (path !== undefined) {
    return {
      isSeenByPager: true,
      write: async (ranges, read) => {
        await writeThroughJournal(path, ranges, read);
        return [];
      },
    };
  }
  if (image === undefined || /^https?:/i.test(image.store)) {
    throw new MinorfaultError("ERR_STORE_READ_ONLY", `${content.name} can't be written back`, {
      hint: "Write-back works on local files and on images in a folder or a bucket",
    });
  }
  return new ImageTarget(image);
}

/** Each flush makes a child of the image that is there under the name, which has to be the one that was opened or flushed. */
class ImageTarget implements FlushTarget {
  readonly isSeenByPager = false;
  readonly #store: string;
  readonly #name: string;
  /** SHA-256 of the root index: what the memory's content is, but for what was written since. */
  #root: string;

  constructor({ store, name, root }: NonNullable<Content["image"]>) {
    this.#store = store;
    this.#name = name;
    this.#root = root;
  }

  async write(ranges: readonly ByteRange[], read: PieceReader): Promise<readonly string[]> {
    const { buildImage, openImageIn } = await import("../../image/index.ts");
    const { openStore } = await import("../../source/index.ts");
    const store = await openStore(this.#store);
    try {
      const parent = await openImageIn(store, this.#name);
      await parent.close();
      if (parent.manifest.root.sha256 !== this.#root) throw replaced(parent.name);
      const { manifest, dropped } = await buildImage(store, this.#name, {
        regions: parent.manifest.regions.map((region) => childRegion(region, ranges, read)),
        parent: this.#name,
        parentDigest: parent.digest,
        inherit: true,
      });
      this.#root = manifest.root.sha256;
      return dropped.map(({ what, why }) => `${what}: ${why}`);
    } finally {
      await store.close();
    }
  }
}

/** Only chunks with written pages are stored: over another image they would make a mixture of the two. */
function replaced(name: string): MinorfaultError {
  return new MinorfaultError("ERR_SOURCE_CHANGED", `${name} was replaced since it was opened here`, {
    hint: "Nothing was written, and what was written here is still in memory: copy it into the image as it is now",
  });
}

function childRegion(
  { name, guestAddress, pageSize, offset, byteLength, dataBytes }: Manifest["regions"][number],
  ranges: readonly ByteRange[],
  read: PieceReader,
): BuildRegion {
  const changed = changedWithin(ranges, offset, byteLength);
  // A region stays as long as it was, unless something was written behind its end.
  const isLonger = changed.some(({ start, until }) => {
    const tail = new Uint8Array(Math.max(0, until - Math.max(start, dataBytes)));
    read(offset + until - tail.byteLength, tail);
    return tail.some((byte) => byte !== 0);
  });
  const source = memorySource(name, offset, isLonger ? byteLength : dataBytes, read);
  return { name, guestAddress, pageSize, source, changed };
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
  const readSync = (at: number, target: Uint8Array): void => read(offset + at, target);
  return {
    name,
    byteLength,
    readSync,
    read: async (at, target) => readSync(at, target),
    close: async () => undefined,
  };
}
