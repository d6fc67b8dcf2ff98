// A store whose objects are read by way of a cache on disk. Opening still asks the store, which is how a replaced
// object is noticed; what can't be told from its replacement (no strong ETag) is not cached.
//
// MINORFAULT_CACHE=folder turns a cache on for everything that is behind a network, MINORFAULT_CACHE_BYTES=10GiB is
// its limit.

import { parseByteSize } from "../base/byte-size.ts";
import { CachingSource } from "./caching-source.ts";
import { DiskCache } from "./disk-cache.ts";
import type { ListedObject, ObjectStore, PutOptions } from "./object-store.ts";
import type { PageSource } from "./page-source.ts";

export interface CachePlace {
  readonly folder: string;
  /** LIMIT: bytes on disk; a number, or a text such as "10GiB". Default 1 GiB. */
  readonly bytesMax?: number | string;
}

const BYTES_DEFAULT = 2 ** 30;

/** The cache that was asked for, by the caller or by the environment. */
export function openCache(place: CachePlace | undefined): DiskCache | undefined {
  const { MINORFAULT_CACHE: folder, MINORFAULT_CACHE_BYTES: bytes } = process.env;
  const wanted = place ?? (folder ? { folder, ...(bytes ? { bytesMax: bytes } : {}) } : undefined);
  if (wanted === undefined) return undefined;
  const what = place === undefined ? "MINORFAULT_CACHE_BYTES" : "The limit of the cache";
  return DiskCache.open(wanted.folder, { bytesMax: parseByteSize(wanted.bytesMax ?? BYTES_DEFAULT, what) });
}

/** The source by way of the cache, if there is one and the source can be cached. */
export function cached(source: PageSource, cache: DiskCache | undefined): PageSource {
  return cache === undefined || source.identity === undefined ? source : new CachingSource(source, cache);
}

export class CachedStore implements ObjectStore {
  readonly url: string;
  readonly #inner: ObjectStore;
  readonly #cache: DiskCache;

  constructor(inner: ObjectStore, cache: DiskCache) {
    this.url = inner.url;
    this.#inner = inner;
    this.#cache = cache;
  }

  async open(key: string, signal?: AbortSignal): Promise<PageSource> {
    return cached(await this.#inner.open(key, signal), this.#cache);
  }

  get(key: string, bytesMax: number, signal?: AbortSignal): Promise<Uint8Array> {
    return this.#inner.get(key, bytesMax, signal);
  }

  put(key: string, bytes: Uint8Array | AsyncIterable<Uint8Array>, options?: PutOptions): Promise<void> {
    return this.#inner.put(key, bytes, options);
  }

  list(prefix: string, signal?: AbortSignal): AsyncIterable<ListedObject> {
    return this.#inner.list(prefix, signal);
  }

  delete(key: string, signal?: AbortSignal): Promise<void> {
    return this.#inner.delete(key, signal);
  }

  async removeUnfinished(ageMs: number, signal?: AbortSignal): Promise<number> {
    return (await this.#inner.removeUnfinished?.(ageMs, signal)) ?? 0;
  }

  close(): Promise<void> {
    return this.#inner.close();
  }
}
