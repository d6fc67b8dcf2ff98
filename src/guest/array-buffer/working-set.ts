// From traces to a working set: the pages that a program touches first, stored with the image in one piece, so that the
// next one has them before it asks.

import { MinorfaultError } from "../../base/errors.ts";
import { mergeTraces, type Trace } from "../../pager/index.ts";

export interface StoreWorkingSetOptions {
  /** Only pages that so many of the runs have touched. Default 1: all. */
  readonly runsMin?: number;
  /** Take the place of a working set of this name. Default false. */
  readonly replace?: boolean;
  readonly signal?: AbortSignal;
}

export interface StoredWorkingSet {
  readonly name: string;
  readonly pages: number;
  /** Stored, compressed. */
  readonly bytes: number;
}

/** Stores, with the image at a URL, a working set of what one or several runs have touched. */
export async function storeWorkingSet(
  url: string | URL,
  name: string,
  traces: readonly Trace[],
  options: StoreWorkingSetOptions = {},
): Promise<StoredWorkingSet> {
  const { runsMin = 1, replace = false, signal } = options;
  const offsets = mergeTraces(traces, runsMin);
  if (offsets.length === 0) {
    throw new MinorfaultError(
      "ERR_BAD_ARGUMENT",
      "The traces have no page in common: there is nothing to store",
    );
  }
  const { addWorkingSet } = await import("../../image/index.ts");
  const { openStore, splitImageUrl } = await import("../../source/index.ts");
  const { store: storeUrl, name: image } = splitImageUrl(String(url));
  const store = await openStore(storeUrl);
  try {
    const extra = signal === undefined ? {} : { signal };
    const set = await addWorkingSet(store, image, name, offsets, { replace, ...extra });
    return { name, pages: set.pages, bytes: set.packBytes };
  } finally {
    await store.close();
  }
}
