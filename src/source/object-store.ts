// Where objects live: a folder, an HTTP server (read-only), a bucket. A key is a relative path of plain names
// joined by "/", at most 1024 bytes; the same keys work in every store. A key is not the folder of another one as
// well: with "a/b" there, "a" may be refused (ERR_STORE_PATH).
//
// LAW 1  `put` is atomic: whoever reads sees the whole object or none, whatever dies on the way.
// LAW 2  With `ifAbsent` exactly one of several writers wins; the others get ERR_STORE_EXISTS. S3 servers without
//        conditional writes can't promise that (s3-upload.ts): there, two at the same moment may both win.
// LAW 3  `open` pins the object's identity (ETag, or inode, length and time): a replaced object is ERR_SOURCE_CHANGED.
// LAW 4  Nothing outside the store's root is read or written, whatever a key or a link says: ERR_STORE_PATH.
// LAW 5  An object that is not there is ERR_SOURCE_MISSING; deleting it again is no error.

import { MinorfaultError } from "../base/errors.ts";
import type { PageSource } from "./page-source.ts";

export interface PutOptions {
  /** Refuse with ERR_STORE_EXISTS where the key is taken. Default: replace. */
  readonly ifAbsent?: boolean;
  readonly signal?: AbortSignal;
}

export interface ListedObject {
  readonly key: string;
  readonly byteLength: number;
}

/** An object that is written before it is known what it will be called; nobody sees it until it is finished. */
export interface Upload {
  /** Adds pieces behind those that were added; resolves when they may change again. Need not be waited for. */
  write(pieces: readonly Uint8Array[]): Promise<void>;
  /** As `put` with all that was added. */
  finish(key: string, options?: PutOptions): Promise<void>;
  /** Gives it up. */
  discard(): Promise<void>;
}

export interface ObjectStore {
  /** As it can be passed to `openStore` again; without credentials. */
  readonly url: string;

  /** The object as a source, pinned to what it is now. */
  open(key: string, signal?: AbortSignal): Promise<PageSource>;

  /** The same at once, where nothing has to be waited for; absent where it has. */
  openSync?(key: string): PageSource;

  /**
   * Opens an object, and fills a target with its bytes from `offset`, by one request; absent where opening costs none.
   * What reaches beyond the object's end is ERR_OUT_OF_RANGE.
   */
  openAt?(key: string, offset: number, target: Uint8Array, signal?: AbortSignal): Promise<PageSource>;

  /** A whole small object; more than `bytesMax` is refused with ERR_SOURCE_TOO_LONG before it is loaded. */
  get(key: string, bytesMax: number, signal?: AbortSignal): Promise<Uint8Array>;

  put(key: string, bytes: Uint8Array | AsyncIterable<Uint8Array>, options?: PutOptions): Promise<void>;

  /**
   * Begins to write an object beside a key, while its content is still being made, without keeping the calling thread.
   * Absent where a name is needed first.
   */
  begin?(beside: string): Upload;

  /** Keys that begin with `prefix`, in order of their UTF-8 bytes. */
  list(prefix: string, signal?: AbortSignal): AsyncIterable<ListedObject>;

  delete(key: string, signal?: AbortSignal): Promise<void>;

  /**
   * Removes what writers that died have left for longer than `ageMs`; nobody can see it, but it takes room. Answers how
   * many. Absent where there is no such thing.
   */
  removeUnfinished?(ageMs: number, signal?: AbortSignal): Promise<number>;

  /** Sources that were opened from it are closed before it, or fail with ERR_CLOSED afterwards. */
  close(): Promise<void>;
}

/** LIMIT: bytes of a key, S3's own. */
export const KEY_BYTES_MAX = 1024;
/** LIMIT: bytes of one name within a key, as file systems have it; leaves room for a temporary name's ending. */
export const KEY_NAME_BYTES_MAX = 200;

/** Throws ERR_STORE_PATH unless the key is one that every store takes (LAW 4). */
export function checkKey(key: string): void {
  const reason = keyProblem(key);
  if (reason === undefined) return;
  throw new MinorfaultError(
    "ERR_STORE_PATH",
    `${JSON.stringify(key.slice(0, 200))} is not a key of a store: ${reason}`,
  );
}

/** A prefix is the beginning of a key: it may be empty, end in "/" or in the middle of a name. */
export function checkPrefix(prefix: string): void {
  if (prefix !== "") checkKey(prefix.endsWith("/") ? prefix.slice(0, -1) : prefix);
}

function keyProblem(key: string): string | undefined {
  if (key === "") return "it is empty";
  if (Buffer.byteLength(key) > KEY_BYTES_MAX) return `it has more than ${KEY_BYTES_MAX} bytes`;
  if (key.startsWith("/")) return "it is absolute";
  // Control characters (NUL ends a path for the kernel), backslashes (separators elsewhere), lone surrogates.
  if (/[\p{Cc}\p{Cs}\\]/u.test(key)) return "it has a character that is not allowed in keys";
  for (const name of key.split("/")) {
    if (name === "") return "it has an empty name";
    // A leading dot covers "." and "..", and is kept for the store's own files.
    if (name.startsWith(".")) return "a name in it begins with a dot";
    if (Buffer.byteLength(name) > KEY_NAME_BYTES_MAX)
      return `a name in it has more than ${KEY_NAME_BYTES_MAX} bytes`;
  }
  return undefined;
}
