// The root of an image's index: where its index pages are, and which packs its records mean.
//
//   ┌ header, 64 bytes ┬ node: one place an index page ┬ names of packs, 32 bytes each ┐
//
// A child's list of packs begins with its parent's, in the same order: so index pages of the parent go on being
// right in the child, and a child refers to them instead of writing its own.

import { badImage, checkBinaryVersion, hashAt } from "./content.ts";
import { fromHex, toHex } from "./hash.ts";
import { bitmapBytes, encodeNode, IndexNode, type IndexRecord, RECORD_BYTES } from "./index-node.ts";
import {
  CHUNK_BYTES_MAX,
  CHUNK_BYTES_MIN,
  FORMAT_VERSION,
  HASH_BYTES,
  IMAGE_BYTES_MAX,
  PACKS_MAX,
  PAGE_CHUNKS,
} from "./limits.ts";

const MAGIC = "MFLTROOT";
const HEADER_BYTES = 64;
const VERSION = 8;
const CHUNK_BYTES = 12;
const CHUNKS = 16;
const PACKS = 24;
const NODE_BYTES = 28;

/** The most that an index page can have. */
export const INDEX_PAGE_BYTES_MAX: number = bitmapBytes(PAGE_CHUNKS) + PAGE_CHUNKS * RECORD_BYTES;

export interface RootIndex {
  readonly chunkBytes: number;
  readonly chunks: number;
  readonly node: IndexNode;
  /** Names of packs; a record's pack is a place in this list. */
  readonly packs: PackList;
}

/** Names of packs as they lie in the root: made into text when they are needed. */
export class PackList {
  readonly #bytes: Uint8Array;
  /** Those that have been asked for. */
  readonly #names = new Map<number, string>();

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
  }

  get count(): number {
    return this.#bytes.byteLength / HASH_BYTES;
  }

  name(pack: number): string {
    let name = this.#names.get(pack);
    if (name === undefined) {
      name = toHex(hashAt(this.#bytes, pack * HASH_BYTES));
      this.#names.set(pack, name);
    }
    return name;
  }

  names(): string[] {
    return Array.from({ length: this.count }, (_, pack) => this.name(pack));
  }
}

/** Places of the index page `page` of an image of so many chunks. */
export function pageCapacity(page: number, chunks: number): number {
  return Math.min(PAGE_CHUNKS, chunks - page * PAGE_CHUNKS);
}

export function encodeRoot(
  chunkBytes: number,
  chunks: number,
  pages: readonly (IndexRecord | undefined)[],
  packs: readonly string[],
): Uint8Array {
  const node = encodeNode(pages);
  const bytes = new Uint8Array(HEADER_BYTES + node.byteLength + packs.length * HASH_BYTES);
  const view = new DataView(bytes.buffer);
  bytes.set(new TextEncoder().encode(MAGIC));
  view.setUint32(VERSION, FORMAT_VERSION, true);
  view.setUint32(CHUNK_BYTES, chunkBytes, true);
  view.setBigUint64(CHUNKS, BigInt(chunks), true);
  view.setUint32(PACKS, packs.length, true);
  view.setUint32(NODE_BYTES, node.byteLength, true);
  bytes.set(node, HEADER_BYTES);
  for (const [index, name] of packs.entries()) {
    bytes.set(fromHex(name), HEADER_BYTES + node.byteLength + index * HASH_BYTES);
  }
  return bytes;
}

/** The root from bytes whose hash has been checked. */
export function decodeRoot(bytes: Uint8Array): RootIndex {
  if (bytes.byteLength < HEADER_BYTES || new TextDecoder().decode(bytes.subarray(0, 8)) !== MAGIC) {
    throw badImage("The root index does not begin like one");
  }
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const version = view.getUint32(VERSION, true);
  checkBinaryVersion(version, "The root index");
  const chunkBytes = view.getUint32(CHUNK_BYTES, true);
  const chunks = Number(view.getBigUint64(CHUNKS, true));
  const packs = view.getUint32(PACKS, true);
  const nodeBytes = view.getUint32(NODE_BYTES, true);
  if (!isChunkSize(chunkBytes) || chunks < 1 || chunks * chunkBytes > IMAGE_BYTES_MAX) {
    throw badImage(`The root index speaks of ${chunks} chunks of ${chunkBytes} bytes`);
  }
  if (packs > PACKS_MAX || bytes.byteLength !== HEADER_BYTES + nodeBytes + packs * HASH_BYTES) {
    throw badImage(`The root index has ${bytes.byteLength} bytes, which do not fit its ${packs} packs`);
  }
  const capacity = Math.ceil(chunks / PAGE_CHUNKS);
  const nodePart = bytes.subarray(HEADER_BYTES, HEADER_BYTES + nodeBytes);
  const node = new IndexNode(nodePart, capacity, packs, INDEX_PAGE_BYTES_MAX, "The root index");
  return { chunkBytes, chunks, node, packs: new PackList(bytes.subarray(HEADER_BYTES + nodeBytes)) };
}

export function isChunkSize(byteLength: number): boolean {
  return (
    byteLength >= CHUNK_BYTES_MIN && byteLength <= CHUNK_BYTES_MAX && Number.isInteger(Math.log2(byteLength))
  );
}
