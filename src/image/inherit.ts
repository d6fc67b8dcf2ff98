// What a child takes over from its parent besides the memory, when it is asked to: notes, attachments, working sets.
//
// Attachments stay where they are, by reference. A working set does too if none of its chunks has changed; else it is
// written anew, the same pages in the same order with what they hold now: replaying old bytes would be wrong.

import { MinorfaultError } from "../base/errors.ts";
import { badImage } from "./content.ts";
import { fromHex } from "./hash.ts";
import { PAGE_BYTES } from "./limits.ts";
import type { ManifestAttachment, ManifestWorkingSet } from "./manifest.ts";
import type { OpenedImage } from "./open-image.ts";
import type { PackWriter } from "./pack-writer.ts";
import { decodeList, listBytesMax, RUN_PAGES } from "./working-set.ts";
import { writeWorkingSet } from "./write-working-set.ts";

/** What could not be taken over. */
export interface Dropped {
  readonly what: string;
  readonly why: string;
}

/** Those of the child, and those of the parent of which it has none of that name. */
export function inheritedAttachments(
  parent: OpenedImage,
  own: readonly ManifestAttachment[],
): ManifestAttachment[] {
  const names = new Set(own.map(({ name }) => name));
  return [...parent.manifest.attachments.filter(({ name }) => !names.has(name)), ...own];
}

/** `child` is the image that is about to be published. One that can't be read is dropped. */
export async function inheritedWorkingSets(
  parent: OpenedImage,
  child: OpenedImage,
  newWriter: () => PackWriter,
  signal?: AbortSignal,
): Promise<{ workingSets: ManifestWorkingSet[]; dropped: Dropped[] }> {
  const workingSets: ManifestWorkingSet[] = [];
  const dropped: Dropped[] = [];
  for (const set of parent.manifest.workingSets) {
    try {
      const runs = await runsOf(parent, set, signal);
      const pages = pagesOf(runs);
      const isSame = await areSame(parent, child, pages);
      workingSets.push(isSame ? set : await writeWorkingSet(child, set.name, pages, newWriter(), signal));
    } catch (error) {
      if (!(error instanceof MinorfaultError) || error.kind !== "source") throw error;
      dropped.push({ what: `working set ${set.name}`, why: error.message });
    }
  }
  return { workingSets, dropped };
}

async function runsOf(
  image: OpenedImage,
  set: ManifestWorkingSet,
  signal?: AbortSignal,
): Promise<Uint32Array> {
  const what = `working set ${set.name}`;
  const { listBytes, listSha256 } = set;
  if (listBytes > listBytesMax(set.pages)) throw badImage(`${what} has a list of ${listBytes} bytes`);
  const place = {
    hash: fromHex(listSha256),
    encoding: "raw",
    offset: 0,
    storedBytes: listBytes,
    contentBytes: listBytes,
  } as const;
  const bytes = await image.packs.content(set.pack, place, () => what, signal);
  return decodeList(bytes, image.byteLength, what).runs;
}

function pagesOf(runs: Uint32Array): number[] {
  const pages: number[] = [];
  for (let at = 0; at < runs.length; at += 2) {
    const until = runs[at]! + (runs[at + 1]! & RUN_PAGES);
    for (let page = runs[at]!; page < until; page++) pages.push(page);
  }
  return pages;
}

/** Whether all chunks that these pages lie in have one hash in both images. */
async function areSame(parent: OpenedImage, child: OpenedImage, pages: readonly number[]): Promise<boolean> {
  const pagesPerChunk = parent.chunkBytes / PAGE_BYTES;
  const chunks = new Set(pages.map((page) => Math.floor(page / pagesPerChunk)));
  for (const chunk of chunks) {
    const [before, after] = [await parent.locate(chunk), await child.locate(chunk)];
    if (before === undefined || after === undefined) {
      if (before !== after) return false;
    } else if (Buffer.compare(before.hash, after.hash) !== 0) return false;
  }
  return true;
}
