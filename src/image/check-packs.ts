// Whether packs that somebody relies on are still there: asked by whoever writes for longer than a moment.

import { MinorfaultError } from "../base/errors.ts";
import type { ObjectStore } from "../source/object-store.ts";
import { PACKS, packOfKey } from "./names.ts";

/** Whoever takes longer looks again whether the packs that were there at the beginning still are. */
export const RECHECK_MS = 60_000;

/** That nobody deleted packs while a long build relied on them. */
export async function checkPacks(
  store: ObjectStore,
  packs: readonly string[],
  signal?: AbortSignal,
): Promise<void> {
  const there = new Set<string | undefined>();
  for await (const { key } of store.list(PACKS, signal)) there.add(packOfKey(key));
  const gone = packs.find((pack) => !there.has(pack));
  if (gone === undefined) return;
  throw new MinorfaultError(
    "ERR_SOURCE_CHANGED",
    `Pack ${gone} was deleted while the image was being built`,
    {
      hint: "Build the image again; give prune a longer grace than a build takes",
    },
  );
}
