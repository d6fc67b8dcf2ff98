// A store in memory that notes every change in order, and that can be put back to how it was after each of them.

import { MinorfaultError } from "../../src/base/errors.ts";
import { MemorySource } from "../../src/source/memory-source.ts";
import {
  checkKey,
  type ListedObject,
  type ObjectStore,
  type PutOptions,
} from "../../src/source/object-store.ts";
import type { PageSource } from "../../src/source/page-source.ts";

export type Change =
  | { readonly op: "put"; readonly key: string; readonly bytes: Uint8Array }
  | { readonly op: "delete"; readonly key: string };

export class MemoryStore implements ObjectStore {
  readonly url = "memory:";
  readonly objects: Map<string, Uint8Array>;
  readonly changes: Change[] = [];
  /** Bytes that were read from objects whose key begins so. */
  readonly bytesRead = new Map<string, number>();
  /** Called before each change; may throw. */
  beforeChange: (change: Change) => void = () => {};
  /** Sources without readSync, as those of a network are. */
  readonly isRemote: boolean;

  constructor(objects: Iterable<readonly [string, Uint8Array]> = [], isRemote = false) {
    this.objects = new Map(objects);
    this.isRemote = isRemote;
  }

  async open(key: string): Promise<PageSource> {
    const source = new MemorySource(this.#find(key), `memory:${key}`);
    const note = (length: number) => this.bytesRead.set(key, (this.bytesRead.get(key) ?? 0) + length);
    const read = source.read.bind(source);
    const readSync = source.readSync.bind(source);
    const counted: PageSource = {
      name: source.name,
      byteLength: source.byteLength,
      read: (offset, target, signal) => {
        note(target.byteLength);
        return read(offset, target, signal);
      },
      close: async () => {},
    };
    if (this.isRemote) return counted;
    return {
      ...counted,
      readSync: (offset, target) => {
        note(target.byteLength);
        readSync(offset, target);
      },
    };
  }

  async get(key: string, bytesMax: number): Promise<Uint8Array> {
    const bytes = this.#find(key);
    if (bytes.byteLength > bytesMax) {
      throw new MinorfaultError("ERR_SOURCE_TOO_LONG", `${key} has ${bytes.byteLength} bytes`);
    }
    return bytes.slice();
  }

  async put(
    key: string,
    bytes: Uint8Array | AsyncIterable<Uint8Array>,
    options: PutOptions = {},
  ): Promise<void> {
    checkKey(key);
    const pieces: Uint8Array[] = [];
    if (bytes instanceof Uint8Array) pieces.push(bytes);
    else for await (const piece of bytes) pieces.push(piece.slice());
    options.signal?.throwIfAborted();
    if (options.ifAbsent && this.objects.has(key)) {
      throw new MinorfaultError("ERR_STORE_EXISTS", `${key} is there already`);
    }
    this.apply({ op: "put", key, bytes: new Uint8Array(Buffer.concat(pieces)) });
  }

  async *list(prefix: string): AsyncIterable<ListedObject> {
    for (const key of [...this.objects.keys()].sort()) {
      if (key.startsWith(prefix)) yield { key, byteLength: this.objects.get(key)?.byteLength ?? 0 };
    }
  }

  async delete(key: string): Promise<void> {
    checkKey(key);
    if (this.objects.has(key)) this.apply({ op: "delete", key });
  }

  async close(): Promise<void> {}

  apply(change: Change): void {
    this.beforeChange(change);
    this.changes.push(change);
    if (change.op === "put") this.objects.set(change.key, change.bytes);
    else this.objects.delete(change.key);
  }

  get byteLength(): number {
    return [...this.objects.values()].reduce((sum, { byteLength }) => sum + byteLength, 0);
  }

  #find(key: string): Uint8Array {
    checkKey(key);
    const bytes = this.objects.get(key);
    if (bytes === undefined) throw new MinorfaultError("ERR_SOURCE_MISSING", `${key} is not there`);
    return bytes;
  }
}
