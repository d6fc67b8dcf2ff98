// The paths of a folder store: from a key to a place that certainly lies within the root, and back by listing.
//
// Links are followed as long as they stay inside: every path is resolved first, and what is opened is the resolved
// path. Names that begin with a dot are the store's own (files that are being written) and never keys.

import { lstatSync, readdirSync, realpathSync, statSync } from "node:fs";
import { basename, dirname, join, sep } from "node:path";
import { MinorfaultError } from "../base/errors.ts";
import { fileCall, fileFailure } from "./file-failure.ts";
import { makeFolder } from "./folders.ts";
import { checkKey, checkPrefix, type ListedObject } from "./object-store.ts";

export class StoreFolder {
  readonly root: string;

  constructor(root: string) {
    this.root = root;
  }

  /** The resolved path of an object that exists. */
  find(key: string): string {
    checkKey(key);
    return this.#resolve(join(this.root, key), key);
  }

  /** The path of an object's own entry, which may be a link; undefined where its folder is not there. */
  findEntry(key: string): string | undefined {
    checkKey(key);
    const path = join(this.root, key);
    const entry = fileCall("stat", path, () => lstatSync(path, { throwIfNoEntry: false }));
    if (entry === undefined) return undefined;
    return join(this.#resolve(dirname(path), key), basename(path));
  }

  /** The path that an object would have, its folders made where they are missing. */
  place(key: string): string {
    checkKey(key);
    const names = key.split("/");
    const name = names.pop() ?? "";
    makeFolder(this.root);
    let folder = this.#resolve(this.root, key);
    for (const part of names) {
      const next = join(folder, part);
      makeFolder(next);
      folder = this.#resolve(next, key);
    }
    return join(folder, name);
  }

  *list(prefix: string): Generator<ListedObject> {
    checkPrefix(prefix);
    const folder = prefix.slice(0, prefix.lastIndexOf("/") + 1);
    if (folder !== "" && !this.#isFolder(folder)) return;
    yield* this.#walk(folder, prefix);
  }

  /** The paths of all folders of the store, the root first; links to others are not followed. */
  *folders(): Generator<string> {
    const waiting = [this.root];
    for (let path = waiting.pop(); path !== undefined; path = waiting.pop()) {
      yield path;
      for (const key of children(path, "")) if (key.endsWith("/")) waiting.push(join(path, key.slice(0, -1)));
    }
  }

  #isFolder(key: string): boolean {
    try {
      return statSync(this.find(key.slice(0, -1))).isDirectory();
    } catch (error) {
      if (error instanceof MinorfaultError && error.code === "ERR_SOURCE_MISSING") return false;
      throw error;
    }
  }

  /** `folder` is "" or ends in "/". A folder is compared with its "/", which is its place among the keys. */
  *#walk(folder: string, prefix: string): Generator<ListedObject> {
    const path = folder === "" ? this.root : this.find(folder.slice(0, -1));
    for (const key of children(path, folder)) {
      if (!key.startsWith(prefix) && !prefix.startsWith(key)) continue;
      if (key.endsWith("/")) {
        yield* this.#walk(key, prefix);
        continue;
      }
      const stats = statSync(join(this.root, key), { throwIfNoEntry: false });
      // Deleted since, or a link that leads nowhere.
      if (stats?.isFile() && key.startsWith(prefix)) yield { key, byteLength: stats.size };
    }
  }

  #resolve(path: string, key: string): string {
    const real = fileCall("open", this.nameOf(key), () => realpathSync(path));
    const root = realpathSync(this.root);
    if (real !== root && !real.startsWith(root + sep)) {
      throw new MinorfaultError("ERR_STORE_PATH", `${this.nameOf(key)} is a link that leaves the store`);
    }
    return real;
  }

  nameOf(key: string): string {
    return join(this.root, key);
  }
}

/** The keys below one folder, folders with a "/" at their end, by the order of their bytes. Links to folders are not followed. */
function children(path: string, folder: string): string[] {
  let entries: ReturnType<typeof entriesOf>;
  try {
    entries = entriesOf(path);
  } catch (error) {
    const failure = fileFailure(error, "readdir", path);
    if (failure instanceof MinorfaultError && failure.code === "ERR_SOURCE_MISSING") return [];
    throw failure;
  }
  return entries
    .filter((entry) => isKeyName(entry.name))
    .map((entry) => `${folder}${entry.name}${entry.isDirectory() ? "/" : ""}`)
    .map((key) => ({ key, bytes: Buffer.from(key) }))
    .sort((a, b) => Buffer.compare(a.bytes, b.bytes))
    .map(({ key }) => key);
}

function entriesOf(path: string) {
  return readdirSync(path, { withFileTypes: true });
}

function isKeyName(name: string): boolean {
  try {
    checkKey(name);
    return true;
  } catch {
    return false;
  }
}
