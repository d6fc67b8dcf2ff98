// A folder as an object store: one file an object, durable and atomic (durable-file.ts), confined to its root
// (store-folder.ts). No call of it uses libuv's threads.

import { existsSync, rmSync } from "node:fs";
import { dirname, resolve } from "node:path";
import { MinorfaultError } from "../base/errors.ts";
import { removeUnfinished, syncFolder, writeDurably } from "./durable-file.ts";
import { fileCall } from "./file-failure.ts";
import { FileSource } from "./file-source.ts";
import type { ListedObject, ObjectStore, PutOptions, Upload } from "./object-store.ts";
import type { PageSource } from "./page-source.ts";
import { StoreFolder } from "./store-folder.ts";
import { readWhole } from "./whole.ts";
import { FolderUpload } from "./write-thread.ts";

export class FolderStore implements ObjectStore {
  readonly url: string;
  readonly #folder: StoreFolder;
  #closed = false;

  /** The folder is made by the first `put`. */
  constructor(path: string) {
    this.url = resolve(path);
    this.#folder = new StoreFolder(this.url);
  }

  async open(key: string, signal?: AbortSignal): Promise<PageSource> {
    this.#check(signal);
    return this.openSync(key);
  }

  openSync(key: string): PageSource {
    this.#check(undefined);
    return FileSource.open(this.#folder.find(key), this.#folder.nameOf(key));
  }

  async get(key: string, bytesMax: number, signal?: AbortSignal): Promise<Uint8Array> {
    return readWhole(await this.open(key, signal), bytesMax, signal);
  }

  async put(
    key: string,
    bytes: Uint8Array | AsyncIterable<Uint8Array>,
    options: PutOptions = {},
  ): Promise<void> {
    this.#check(options.signal);
    await writeDurably(this.#folder.place(key), bytes, options);
  }

  begin(beside: string): Upload {
    this.#check(undefined);
    return new FolderUpload(this.#folder.place(beside), (key) => this.#folder.place(key));
  }

  async *list(prefix: string, signal?: AbortSignal): AsyncIterable<ListedObject> {
    this.#check(signal);
    for (const object of this.#folder.list(prefix)) {
      yield object;
      this.#check(signal);
    }
  }

  async delete(key: string, signal?: AbortSignal): Promise<void> {
    this.#check(signal);
    const path = this.#folder.findEntry(key);
    if (path === undefined) return;
    fileCall("unlink", path, () => rmSync(path, { force: true }));
    syncFolder(dirname(path));
  }

  async removeUnfinished(ageMs: number, signal?: AbortSignal): Promise<number> {
    let removed = 0;
    for (const folder of this.#folder.folders()) {
      this.#check(signal);
      if (existsSync(folder)) removed += removeUnfinished(folder, ageMs, Date.now());
    }
    return removed;
  }

  async close(): Promise<void> {
    this.#closed = true;
  }

  #check(signal: AbortSignal | undefined): void {
    signal?.throwIfAborted();
    if (this.#closed) throw new MinorfaultError("ERR_CLOSED", `The store ${this.url} has been closed`);
  }
}
