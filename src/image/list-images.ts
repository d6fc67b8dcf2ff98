// The images of a store, by their manifests.

import { MinorfaultError } from "../base/errors.ts";
import type { ObjectStore } from "../source/object-store.ts";
import type { Manifest } from "./manifest.ts";
import { imageOfKey, MANIFESTS, manifestKey } from "./names.ts";
import { checkThere, loadManifest } from "./open-image.ts";

export interface ListedImage {
  readonly name: string;
  readonly digest?: string;
  readonly manifest?: Manifest;
  /** Why the manifest can't be read. */
  readonly problem?: MinorfaultError;
}

export async function* listImages(store: ObjectStore, signal?: AbortSignal): AsyncGenerator<ListedImage> {
  for await (const { key } of store.list(MANIFESTS, signal)) {
    const name = imageOfKey(key);
    if (name === undefined) continue;
    try {
      yield { name, ...(await loadManifest(store, name, signal)) };
    } catch (error) {
      if (!(error instanceof MinorfaultError) || error.kind !== "source") throw error;
      yield { name, problem: error };
    }
  }
}

/** Deletes an image's manifest: from then on it does not exist. Its packs are deleted by `prune`. */
export async function removeImage(store: ObjectStore, name: string, signal?: AbortSignal): Promise<void> {
  // A damaged image can be removed as well: only that its manifest is there is asked.
  await checkThere(store, name, signal);
  await store.delete(manifestKey(name), signal);
}
