// What buildImage takes and gives.

import type { Range } from "../base/range.ts";
import type { PageSource } from "../source/page-source.ts";
import type { Dropped } from "./inherit.ts";
import type { Manifest } from "./manifest.ts";
import type { Nonce, WrittenPack } from "./pack-writer.ts";

export interface BuildRegion {
  readonly name: string;
  /** Where the guest has it; 0 if that means nothing. */
  readonly guestAddress?: number;
  readonly pageSize?: 4096 | 2097152;
  /** All of the region's content; it stays the caller's to close. */
  readonly source: PageSource;
  /** Where the source has anything but zeros, if that is known: the rest is not read. */
  readonly extents?: Iterable<Range>;
  /** With a parent: where the region may differ from it. Nothing else is read. Default: everywhere. */
  readonly changed?: Iterable<Range>;
}

export interface Attachment {
  readonly name: string;
  readonly bytes: Uint8Array;
}

/** What is known only when all content has come. */
export interface BuildEnding {
  /** By a region's name: ranges that are read once more. */
  readonly revised?: ReadonlyMap<string, Iterable<Range>>;
  readonly notes?: Readonly<Record<string, string>>;
  readonly attachments?: readonly Attachment[];
}

/** Reads what has been built of a region, verified. */
export type ReadBuilt = (region: number, offset: number, target: Uint8Array) => Promise<void>;

export interface BuildOptions {
  readonly regions: readonly BuildRegion[];
  /** Default zstd, or as the parent. */
  readonly codec?: "none" | "zstd";
  /** Of zstd: 1 to 19, default 3, or as the parent. */
  readonly level?: number;
  /** A power of two from 4 KiB to 2 MiB; default 64 KiB, or the parent's. */
  readonly chunkBytes?: number;
  /** An image of the same store, with the same regions: what did not change is referred to. */
  readonly parent?: string;
  /** SHA-256 that the parent's manifest must have. */
  readonly parentDigest?: string;
  /** Takes over the parent's notes, attachments and working sets, except those that are given. Default false. */
  readonly inherit?: boolean;
  readonly notes?: Readonly<Record<string, string>>;
  readonly attachments?: readonly Attachment[];
  /**
   * Called when all regions have been read once, for content that comes while the image is being built: says what
   * has changed since it was read, and what goes with the image. Costs 90 KB of memory for each 64 MiB of content.
   * `readBuilt` reads whole chunks of a region as they were read before.
   */
  readonly ending?: (readBuilt: ReadBuilt) => Promise<BuildEnding>;
  /** Where equal chunks are looked for: in all images of the store (default), the parent, or this image. */
  readonly dedup?: "store" | "parent" | "image";
  /** Refuse with ERR_STORE_EXISTS where the name is taken. Default: the new image replaces the old one. */
  readonly ifAbsent?: boolean;
  readonly signal?: AbortSignal;
  readonly onProgress?: (progress: BuildProgress) => void;
  /** For tests that need the same bytes twice. */
  readonly nonce?: Nonce;
  readonly created?: Date;
  readonly packBytes?: number;
}

export interface BuildProgress {
  readonly doneBytes: number;
  readonly totalBytes: number;
  /** What has been put into the store so far. */
  readonly writtenBytes: number;
}

export interface BuildReport {
  readonly manifest: Manifest;
  /** SHA-256 of the manifest. */
  readonly digest: string;
  /** Chunks that were looked at, and what became of them. */
  readonly chunks: {
    readonly zero: number;
    /** Stored already, by this image or another one. */
    readonly known: number;
    readonly stored: number;
  };
  readonly contentBytes: number;
  readonly packs: readonly WrittenPack[];
  readonly writtenBytes: number;
  /** With `inherit`: what of the parent could not be taken over. */
  readonly dropped: readonly Dropped[];
  readonly ms: number;
}
