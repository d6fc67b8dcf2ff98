// Stores a working set with an image: pages in the order in which they were touched, taken from the image itself.
//
// The image's manifest is replaced, and nothing else changes: whoever has the image open goes on reading.

import { MinorfaultError } from "../base/errors.ts";
import type { ObjectStore } from "../source/object-store.ts";
import { PAGE_BYTES, WORKING_SET_PAGES_MAX, WORKING_SETS_MAX } from "./limits.ts";
import { encodeManifest, type Manifest, type ManifestWorkingSet } from "./manifest.ts";
import { checkName, manifestKey, packKey } from "./names.ts";
import { loadManifest, type OpenedImage, openImageIn } from "./open-image.ts";
import { type Nonce, PackWriter } from "./pack-writer.ts";
import { writeWorkingSet } from "./write-working-set.ts";

export interface WorkingSetOptions {
  /** Takes the place of a working set of the same name. Default false. */
  readonly replace?: boolean;
  readonly signal?: AbortSignal;
  readonly nonce?: Nonce;
}

/** `offsets`: of pages in the flat space, in the order in which they were first touched; repeated ones are left out. */
export async function addWorkingSet(
  store: ObjectStore,
  imageName: string,
  name: string,
  offsets: Iterable<number>,
  options: WorkingSetOptions = {},
): Promise<ManifestWorkingSet> {
  checkName("a working set", name);
  const { signal } = options;
  const image = await openImageIn(store, imageName, signal && { signal });
  const writing = { ...(signal && { signal }), ...(options.nonce && { nonce: options.nonce }) };
  const writer = new PackWriter(store, { ...writing, packBytes: Number.MAX_SAFE_INTEGER });
  let mayBePublished = false;
  try {
    checkRoom(image.manifest, name, options.replace ?? false);
    const set = await writeWorkingSet(image, name, pagesOf(image, offsets), writer, signal);
    await replaceManifest(store, imageName, (manifest) => {
      checkSame(manifest, image.manifest);
      // A failure from here on may be one of the answer alone: the pack must stay then.
      mayBePublished = true;
      return {
        ...manifest,
        workingSets: [...manifest.workingSets.filter((each) => each.name !== name), set],
      };
    });
    return set;
  } catch (error) {
    const packs = mayBePublished ? [] : writer.written;
    for (const { name: pack } of packs) await store.delete(packKey(pack)).catch(() => {});
    throw error;
  } finally {
    await image.close();
  }
}

/** Takes a working set away; its pack is deleted by `prune`. */
export async function removeWorkingSet(store: ObjectStore, imageName: string, name: string): Promise<void> {
  await replaceManifest(store, imageName, (manifest) => {
    const workingSets = manifest.workingSets.filter((each) => each.name !== name);
    if (workingSets.length === manifest.workingSets.length) {
      throw new MinorfaultError("ERR_SOURCE_MISSING", `${imageName} has no working set ${name}`);
    }
    return { ...manifest, workingSets };
  });
}

async function replaceManifest(
  store: ObjectStore,
  name: string,
  change: (manifest: Manifest) => Manifest,
): Promise<void> {
  const { manifest } = await loadManifest(store, name);
  await store.put(manifestKey(name), encodeManifest(change(manifest)));
}

/** The set has the bytes of what was opened; what has its name by now may hold others. */
function checkSame(now: Manifest, opened: Manifest): void {
  if (now.root.sha256 === opened.root.sha256) return;
  throw new MinorfaultError(
    "ERR_SOURCE_CHANGED",
    `${now.name} was replaced while its working set was being written`,
    { hint: "Record the working set again, of the image that is there now" },
  );
}

function checkRoom({ name: image, workingSets }: Manifest, name: string, replace: boolean): void {
  const isThere = workingSets.some((each) => each.name === name);
  if (isThere && !replace) {
    throw new MinorfaultError("ERR_STORE_EXISTS", `${image} has a working set ${name} already`, {
      hint: "Choose another name, or say that it shall be replaced (--replace)",
    });
  }
  if (!isThere && workingSets.length >= WORKING_SETS_MAX) {
    throw new MinorfaultError("ERR_LIMIT", `An image has at most ${WORKING_SETS_MAX} working sets`);
  }
}

/** Page numbers, each once. */
function pagesOf(image: OpenedImage, offsets: Iterable<number>): number[] {
  const pages = new Set<number>();
  for (const offset of offsets) {
    if (!Number.isSafeInteger(offset) || offset < 0 || offset >= image.byteLength) {
      throw new MinorfaultError("ERR_OUT_OF_RANGE", `Offset ${offset} is not in ${image.name}`);
    }
    pages.add(Math.floor(offset / PAGE_BYTES));
    if (pages.size > WORKING_SET_PAGES_MAX) {
      throw new MinorfaultError("ERR_LIMIT", `A working set has at most ${WORKING_SET_PAGES_MAX} pages`);
    }
  }
  if (pages.size === 0) throw new MinorfaultError("ERR_BAD_ARGUMENT", "A working set has at least one page");
  return [...pages];
}
