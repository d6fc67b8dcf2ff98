// Objects in memory, as a store: for content made on the spot.

import { MinorfaultError } from "../base/errors.ts";
import { MemorySource } from "./memory-source.ts";
import { checkKey, type ListedObject, type ObjectStore, type PutOptions } from "./object-store.ts";
import type { PageSource } from "./page-source.ts";

export class MemoryStore implements ObjectStore {
  readonly url = "memory:";
  /** As the stores have it that are folders; those of a network have not. */
  readonly openSync?: (key: string) => PageSource;
  readonly #objects: Map<string, Uint8Array>;

  private constructor(objects: Map<string, Uint8Array>, isFar: boolean) {
    this.#objects = objects;
    if (!isFar) this.openSync = (key) => this.#open(key);
  }

  static empty(): MemoryStore {
    return new MemoryStore(new Map(), false);
  }

  /** The same objects as they would be over a network: to be waited for. */
  asFar(): MemoryStore {
    return new MemoryStore(this.#objects, true);
  }

  async open(key: string): Promise<PageSource> {
    return this.openSync === undefined ? farSource(this.#open(key)) : this.#open(key);
  }

  #open(key: string): MemorySource {
    return new MemorySource(this.#find(key), `${this.url}${key}`);
  }

  async get(key: string, bytesMax: number): Promise<Uint8Array> {
    const bytes = this.#find(key);
    if (bytes.byteLength <= bytesMax) return bytes.slice();
    throw new MinorfaultError("ERR_SOURCE_TOO_LONG", `${key} has ${bytes.byteLength} bytes`);
  }

  async put(
    key: string,
    bytes: Uint8Array | AsyncIterable<Uint8Array>,
    { ifAbsent = false }: PutOptions = {},
  ): Promise<void> {
    checkKey(key);
    const whole = bytes instanceof Uint8Array ? bytes.slice() : await joined(bytes);
    if (ifAbsent && this.#objects.has(key)) {
      throw new MinorfaultError("ERR_STORE_EXISTS", `${this.url}${key} is there already`);
    }
    this.#objects.set(key, whole);
  }

  async *list(prefix: string): AsyncIterable<ListedObject> {
    const keys = [...this.#objects.keys()].filter((key) => key.startsWith(prefix));
    keys.sort((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b)));
    for (const key of keys) yield { key, byteLength: this.#objects.get(key)?.byteLength ?? 0 };
  }

  async delete(key: string): Promise<void> {
    this.#objects.delete(key);
  }

  async close(): Promise<void> {}

  #find(key: string): Uint8Array {
    checkKey(key);
    const bytes = this.#objects.get(key);
    if (bytes !== undefined) return bytes;
    throw new MinorfaultError("ERR_SOURCE_MISSING", `There is no ${this.url}${key}`);
  }
}

/** The same bytes without `readSync`. */
export function farSource(source: MemorySource): PageSource {
  const { name, byteLength } = source;
  return {
    name,
    byteLength,
    read: (offset, target, signal) => source.read(offset, target, signal),
    close: () => source.close(),
  };
}

async function joined(parts: AsyncIterable<Uint8Array>): Promise<Uint8Array> {
  const all: Uint8Array[] = [];
  for await (const part of parts) all.push(part);
  return new Uint8Array(Buffer.concat(all));
}
