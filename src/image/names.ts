// Names, and the keys that objects of an image have in a store.
//
//   manifests/<name>.json     one an image, written last
//   packs/<64 hex digits>     everything else, never changed
//   condemned/<64 hex digits> written by prune: a pack that nobody refers to, deleted once this is old enough
//   partial/<name>.json       written by push and pull: packs that are there already

import { MinorfaultError } from "../base/errors.ts";

/** What the name of an image, a region, an attachment, a note or a working set looks like. */
export const NAME: RegExp = /^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$/;
const HASH = /^[0-9a-f]{64}$/;

export const MANIFESTS = "manifests/";
export const PACKS = "packs/";
export const CONDEMNED = "condemned/";
export const PARTIAL = "partial/";

export function checkName(what: string, name: string): string {
  if (NAME.test(name)) return name;
  throw new MinorfaultError(
    "ERR_BAD_ARGUMENT",
    `${JSON.stringify(name.slice(0, 200))} is not a name for ${what}`,
    {
      hint: "Names have up to 128 letters, digits, dots, dashes and underscores, and begin with no dot or dash",
    },
  );
}

export function manifestKey(name: string): string {
  return `${MANIFESTS}${checkName("an image", name)}.json`;
}

/** The name of the image whose manifest has this key, or undefined for anything else. */
export function imageOfKey(key: string): string | undefined {
  const name = key.startsWith(MANIFESTS) && key.endsWith(".json") ? key.slice(MANIFESTS.length, -5) : "";
  return NAME.test(name) ? name : undefined;
}

export function packKey(pack: string): string {
  return `${PACKS}${pack}`;
}

/** The pack that a key under packs/ or condemned/ stands for, or undefined. */
export function packOfKey(key: string): string | undefined {
  const name = key.slice(key.indexOf("/") + 1);
  return HASH.test(name) ? name : undefined;
}
