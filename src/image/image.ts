// An image as its readers see it: a flat space of bytes, in chunks, with regions that say where they belong.
//
// LAW 1  A read that ends well has filled its target with bytes whose hashes were right, all of them. What the target of
//        one that fails holds is nobody's content.
// LAW 2  Everything is checked from the top: manifest, root index, index page, chunk. What is wrong is an error that
//        names it (ERR_WRONG_BYTES, ERR_BAD_IMAGE), never zeros.
// LAW 3  Memory is bounded whatever the size of the image: index pages are loaded when they are needed.

import type { PageSource } from "../source/page-source.ts";
import type { Encoding } from "./content.ts";
import type { Manifest } from "./manifest.ts";

export interface ImageRegion {
  readonly name: string;
  readonly guestAddress: number;
  readonly byteLength: number;
  /** In the image's flat space. */
  readonly offset: number;
  readonly pageSize: 4096 | 2097152;
}

export interface ChunkLocation {
  /** SHA-256 of the content. */
  readonly hash: Uint8Array;
  /** The pack's name. */
  readonly pack: string;
  readonly offset: number;
  readonly storedBytes: number;
  readonly encoding: Encoding;
}

/** A run of pages of a working set, in the order in which they were touched. */
export interface WorkingSetRun {
  /** In the image's flat space. */
  readonly offset: number;
  /** Valid until the next one is asked for. */
  readonly bytes: Uint8Array;
  /** Nothing but zeros, and known to be without looking. */
  readonly isZero: boolean;
}

export interface Image extends PageSource {
  readonly manifest: Manifest;
  /** SHA-256 of the manifest: what pins all of an image. */
  readonly digest: string;
  readonly regions: readonly ImageRegion[];
  readonly chunkBytes: number;
  /** Whether it is read without waiting: its store is of this machine. */
  readonly isAtHand: boolean;

  /** Where a chunk is stored, undefined for zeros; a promise only if its index page is not in memory yet. */
  locate(chunk: number): ChunkLocation | undefined | Promise<ChunkLocation | undefined>;

  /** Whether the range is nothing but zeros: by the index alone, undefined if that is not in memory yet. */
  isZero(offset: number, byteLength: number): boolean | undefined;

  /** A whole chunk, `chunkBytes` long, verified; the target may hold anything when this fails. */
  readChunk(chunk: number, target: Uint8Array, signal?: AbortSignal): Promise<void>;

  /** The same without waiting; false when that is impossible now: a pack not open, a source that is not local. */
  readChunkSync(chunk: number, target: Uint8Array): boolean;

  workingSets(): readonly string[];
  /** One sequential read, verified, in the order in which the pages were touched. */
  readWorkingSet(name: string, signal?: AbortSignal): AsyncIterable<WorkingSetRun>;

  readAttachment(name: string, signal?: AbortSignal): Promise<Uint8Array>;

  [Symbol.asyncDispose](): Promise<void>;
}
