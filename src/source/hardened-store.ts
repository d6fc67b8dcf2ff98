// A store over a network as somebody who only wants the bytes uses it: opening and whole objects are tried again, and
// the sources that it gives out are hardened, all of them sharing one limit of requests, and one cache.

import { type HardenOptions, harden } from "./hardened-source.ts";
import { Lanes } from "./limited-source.ts";
import type { ListedObject, ObjectStore, PutOptions } from "./object-store.ts";
import type { PageSource } from "./page-source.ts";
import { retrying } from "./retrying-source.ts";

export class HardenedStore implements ObjectStore {
  readonly url: string;
  readonly #inner: ObjectStore;
  readonly #options: HardenOptions;
  readonly #lanes: Lanes;
  readonly openAt?: NonNullable<ObjectStore["openAt"]>;

  constructor(inner: ObjectStore, options: HardenOptions = {}) {
    this.url = inner.url;
    this.#inner = inner;
    this.#options = options;
    this.#lanes = options.limit instanceof Lanes ? options.limit : new Lanes(options.limit);
    if (inner.openAt === undefined) return;
    this.openAt = async (key, offset, target, signal) => {
      const opening = (limited: AbortSignal): Promise<PageSource> =>
        inner.openAt!(key, offset, target, limited);
      return this.#hardened(await this.#again(key, signal, opening));
    };
  }

  async open(key: string, signal?: AbortSignal): Promise<PageSource> {
    return this.#hardened(await this.#again(key, signal, (limited) => this.#inner.open(key, limited)));
  }

  async #hardened(source: PageSource): Promise<PageSource> {
    try {
      const { cache, ...others } = this.#options;
      // What has no identity can't be cached; everything else still can be had.
      const isCached = cache !== undefined && (source.identity ?? others.caching?.identity) !== undefined;
      return harden(source, { ...others, limit: this.#lanes, ...(isCached ? { cache } : {}) });
    } catch (error) {
      await source.close();
      throw error;
    }
  }

  get(key: string, bytesMax: number, signal?: AbortSignal): Promise<Uint8Array> {
    return this.#again(key, signal, (limited) => this.#inner.get(key, bytesMax, limited));
  }

  /** Not tried again: a stream is gone once it was read, and a write that was lost may have been done. */
  put(key: string, bytes: Uint8Array | AsyncIterable<Uint8Array>, options?: PutOptions): Promise<void> {
    return this.#inner.put(key, bytes, options);
  }

  list(prefix: string, signal?: AbortSignal): AsyncIterable<ListedObject> {
    return this.#inner.list(prefix, signal);
  }

  delete(key: string, signal?: AbortSignal): Promise<void> {
    return this.#again(key, signal, (limited) => this.#inner.delete(key, limited));
  }

  async removeUnfinished(ageMs: number, signal?: AbortSignal): Promise<number> {
    return (await this.#inner.removeUnfinished?.(ageMs, signal)) ?? 0;
  }

  close(): Promise<void> {
    return this.#inner.close();
  }

  async #again<T>(
    key: string,
    signal: AbortSignal | undefined,
    action: (signal: AbortSignal) => Promise<T>,
  ): Promise<T> {
    return retrying(`${this.url}/${key}`, this.#options.retry, signal, action);
  }
}

/** Hardens what is behind a network; a folder is left as it is, with its synchronous reads. */
export function hardenStore(store: ObjectStore, options?: HardenOptions): ObjectStore {
  return /^(https?|s3):/.test(store.url) ? new HardenedStore(store, options) : store;
}
