// From a URL to the store behind it, and from an image's URL to its store and name.
//
//   models, ./models, /srv/models, file:///srv/models     a folder
//   http://host/models, https://host/models               a web server that honours ranges, read-only
//   s3://bucket/prefix                                    a bucket, by the client's own chain of credentials
//
// HTTP and S3 are loaded when they are first asked for.

import { fileURLToPath } from "node:url";
import { MinorfaultError } from "../base/errors.ts";
import { CachedStore, type CachePlace, cached, openCache } from "./cached-store.ts";
import type { DiskCache } from "./disk-cache.ts";
import { FileSource } from "./file-source.ts";
import { FolderStore } from "./folder-store.ts";
import type { HttpOptions } from "./http-store.ts";
import { checkKey, type ObjectStore } from "./object-store.ts";
import { OwningSource } from "./owning-source.ts";
import type { PageSource } from "./page-source.ts";
import { plain } from "./plain-url.ts";
import type { S3Options } from "./s3-client.ts";
import { schemeOf } from "./scheme.ts";

export interface StoreOptions {
  readonly http?: HttpOptions;
  readonly s3?: S3Options;
  /** Keeps what is read over a network on disk. Default: as the environment says (cached-store.ts). */
  readonly cache?: CachePlace;
}

export async function openStore(url: string, options: StoreOptions = {}): Promise<ObjectStore> {
  switch (schemeOf(url)) {
    case undefined:
      return new FolderStore(checkPath(url));
    case "file":
      return new FolderStore(filePath(url));
    case "http":
    case "https": {
      const cache = openCache(options.cache);
      const { HttpStore } = await import("./http-store.ts");
      return cachedStore(new HttpStore(url, options.http), cache);
    }
    case "s3": {
      const cache = openCache(options.cache);
      const { S3Store } = await import("./s3-store.ts");
      return cachedStore(await S3Store.open(url, options.s3), cache);
    }
    default:
      throw unknownStore(url);
  }
}

function cachedStore(store: ObjectStore, cache: DiskCache | undefined): ObjectStore {
  return cache === undefined ? store : new CachedStore(store, cache);
}

/** One object by its URL, as it is: a raw file. Closing it closes what was opened for it. */
export async function openSource(url: string, options: StoreOptions = {}): Promise<PageSource> {
  const scheme = schemeOf(url);
  if (scheme === undefined) return FileSource.open(checkPath(url));
  if (scheme === "file") return FileSource.open(filePath(url));
  if (scheme === "http" || scheme === "https") {
    const cache = openCache(options.cache);
    const { openHttpSource } = await import("./http-store.ts");
    return cached(await openHttpSource(url, options.http), cache);
  }
  const { store: storeUrl, name } = splitImageUrl(url);
  const store = await openStore(storeUrl, options);
  try {
    return new OwningSource(await store.open(name), store);
  } catch (error) {
    await store.close();
    throw error;
  }
}

/** The last name of an image's URL is its name in the store that the rest is the URL of. */
export function splitImageUrl(url: string): { store: string; name: string } {
  const scheme = schemeOf(url);
  if (scheme === "file") return splitImageUrl(filePath(url));
  if (scheme !== undefined && /[?#]/.test(url)) {
    throw new MinorfaultError("ERR_STORE_URL", `An image's URL has no query: ${plain(url)}`);
  }
  // What belongs to the store in any case: "https://host", or the "/" of an absolute path.
  const least = scheme === undefined ? /^\/?/ : /^[^:]+:\/\/[^/]+/;
  const base = least.exec(url)?.[0];
  const end = url.lastIndexOf("/");
  const name = url.slice(end + 1);
  if (base === undefined || name === "" || (scheme !== undefined && end < base.length)) {
    throw new MinorfaultError(
      "ERR_STORE_URL",
      `${plain(url)} names no image: a store, "/" and a name are needed`,
    );
  }
  checkKey(name);
  return { store: end === -1 ? "." : url.slice(0, Math.max(end, base.length)), name };
}

function checkPath(path: string): string {
  if (path === "" || path.includes("\0")) {
    throw new MinorfaultError("ERR_STORE_URL", "A store's path is not empty and has no zero byte");
  }
  return path;
}

function filePath(url: string): string {
  try {
    return fileURLToPath(url);
  } catch (cause) {
    throw new MinorfaultError("ERR_STORE_URL", `${plain(url)} is not the URL of a local folder`, { cause });
  }
}

function unknownStore(url: string): MinorfaultError {
  return new MinorfaultError("ERR_STORE_URL", `${plain(url)} is not a path, file:, http:, https: or s3: URL`);
}
