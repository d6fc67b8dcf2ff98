// A pack: pieces of content one after the other, and behind them a table that says what each is.
//
//   0                                                         64 bytes
//   ┌ stored bytes of entry 0 ┬ of entry 1 ┬ … ┬ entry ┬ entry ┬ … ┬ footer ┐
//   └ no gaps ────────────────────────────────┘└ 80 bytes each ────────────┘
//                                              └ SHA-256 of this is the pack's name
//
// The name covers the table and the table covers the content, so a pack can be checked without anything else: when
// it arrives from another store, and when a store has to be put together again from its packs alone. 16 random
// bytes in the footer keep two writers from ever making the same pack: whoever made it may delete it again.

import { badImage, checkBinaryVersion, ENCODINGS, type Encoding, hashAt, type Stored } from "./content.ts";
import { sha256, toHex } from "./hash.ts";
import {
  ATTACHMENT_BYTES_MAX,
  FORMAT_VERSION,
  HASH_BYTES,
  PACK_BYTES_MAX,
  PACK_ENTRIES_MAX,
  ROOT_BYTES_MAX,
} from "./limits.ts";

const MAGIC = "MFLTPACK";
export const PACK_FOOTER_BYTES = 64;
export const PACK_ENTRY_BYTES = 80;
export const NONCE_BYTES = 16;
// Within the footer.
const VERSION = 8;
const ENTRIES = 12;
const CONTENT_END = 16;
const FLAGS = 24;
const NONCE = 32;
// Within an entry.
const CHECK = HASH_BYTES;
const OFFSET = CHECK + HASH_BYTES;
const STORED = OFFSET + 4;
const CONTENT = STORED + 4;
const ENCODING = CONTENT + 4;
const KIND = ENCODING + 1;

export const PACK_KINDS = [
  "chunk",
  "index page",
  "root",
  "attachment",
  "working set",
  "working set frame",
] as const;
export type PackKind = (typeof PACK_KINDS)[number];

export interface PackEntry extends Stored {
  readonly check: Uint8Array;
  readonly kind: PackKind;
  /** From the beginning of the pack. */
  readonly offset: number;
}

/** A pack's table, checked. Whoever goes through many reads the bytes; objects of the entries are made when asked for. */
export class PackTable {
  /** 64 hexadecimal digits. */
  readonly name: string;
  /** Of the pack. */
  readonly byteLength: number;
  readonly count: number;
  /** The entries as they are stored. */
  readonly bytes: Uint8Array;
  readonly #view: DataView;
  #entries: readonly PackEntry[] | undefined;

  constructor(name: string, byteLength: number, bytes: Uint8Array) {
    this.name = name;
    this.byteLength = byteLength;
    this.count = bytes.byteLength / PACK_ENTRY_BYTES;
    this.bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  get entries(): readonly PackEntry[] {
    this.#entries ??= Array.from({ length: this.count }, (_, index) => {
      const { bytes } = this;
      const [at, checkAt] = [this.hashAt(index), this.checkAt(index)];
      return { ...this.place(index), hash: hashAt(bytes, at), check: hashAt(bytes, checkAt) };
    });
    return this.#entries;
  }

  /** Where in `bytes` an entry's hash is. */
  hashAt(index: number): number {
    return index * PACK_ENTRY_BYTES;
  }

  checkAt(index: number): number {
    return index * PACK_ENTRY_BYTES + CHECK;
  }

  /** An entry but for its hashes. */
  place(index: number): Omit<PackEntry, "hash" | "check"> {
    const at = index * PACK_ENTRY_BYTES;
    return {
      offset: this.#view.getUint32(at + OFFSET, true),
      storedBytes: this.#view.getUint32(at + STORED, true),
      contentBytes: this.#view.getUint32(at + CONTENT, true),
      encoding: ENCODINGS[this.bytes[at + ENCODING]!]!,
      kind: PACK_KINDS[this.bytes[at + KIND]!]!,
    };
  }

  /** Throws where an entry is none, or the content is not `contentBytes` without gaps. */
  check(contentBytes: number): this {
    const what = packText(this.name);
    let end = 0;
    for (let index = 0; index < this.count; index++) {
      checkEntry(this.bytes, this.#view, index * PACK_ENTRY_BYTES, what);
      const { offset, storedBytes } = this.place(index);
      if (offset !== end) throw badImage(`${what} has a gap or an overlap at entry ${index}`);
      end += storedBytes;
    }
    if (end === contentBytes) return this;
    throw badImage(`${what} has ${contentBytes} bytes of content, its table ends at ${end}`);
  }
}

/** Everything behind the content: table and footer. */
export function encodePackTail(
  entries: readonly PackEntry[],
  nonce: Uint8Array,
): { name: string; tail: Uint8Array } {
  const tail = new Uint8Array(entries.length * PACK_ENTRY_BYTES + PACK_FOOTER_BYTES);
  const view = new DataView(tail.buffer);
  let end = 0;
  for (const [index, entry] of entries.entries()) {
    const at = index * PACK_ENTRY_BYTES;
    tail.set(entry.hash, at);
    tail.set(entry.check, at + CHECK);
    view.setUint32(at + OFFSET, entry.offset, true);
    view.setUint32(at + STORED, entry.storedBytes, true);
    view.setUint32(at + CONTENT, entry.contentBytes, true);
    tail[at + ENCODING] = ENCODINGS.indexOf(entry.encoding);
    tail[at + KIND] = PACK_KINDS.indexOf(entry.kind);
    end = entry.offset + entry.storedBytes;
  }
  const footer = entries.length * PACK_ENTRY_BYTES;
  tail.set(new TextEncoder().encode(MAGIC), footer);
  view.setUint32(footer + VERSION, FORMAT_VERSION, true);
  view.setUint32(footer + ENTRIES, entries.length, true);
  view.setBigUint64(footer + CONTENT_END, BigInt(end), true);
  tail.set(nonce, footer + NONCE);
  return { name: toHex(sha256(tail)), tail };
}

/** How many bytes of a pack are table and footer; its last 64 bytes are enough to know. */
export function packTailBytes(bytes: Uint8Array, name: string): number {
  const what = packText(name);
  const at = bytes.byteLength - PACK_FOOTER_BYTES;
  if (at < 0 || new TextDecoder().decode(bytes.subarray(at, at + 8)) !== MAGIC) {
    throw badImage(`${what} does not end like a pack`);
  }
  const view = new DataView(bytes.buffer, bytes.byteOffset + at, PACK_FOOTER_BYTES);
  checkBinaryVersion(view.getUint32(VERSION, true), what);
  const entries = view.getUint32(ENTRIES, true);
  if (entries === 0 || entries > PACK_ENTRIES_MAX) throw badImage(`${what} has ${entries} entries`);
  return entries * PACK_ENTRY_BYTES + PACK_FOOTER_BYTES;
}

/** The table of a pack from its last bytes, which must hold it whole; `byteLength` is the object's. */
export function decodePackTable(bytes: Uint8Array, name: string, byteLength: number): PackTable {
  const what = packText(name);
  const tailBytes = packTailBytes(bytes, name);
  if (bytes.byteLength < tailBytes) throw badImage(`${what} is shorter than its table`);
  const tail = bytes.subarray(bytes.byteLength - tailBytes);
  const hash = toHex(sha256(tail));
  if (hash !== name) throw badImage(`${what} has a table with the SHA-256 ${hash}`);
  const view = new DataView(tail.buffer, tail.byteOffset, tail.byteLength);
  const footer = tailBytes - PACK_FOOTER_BYTES;
  if (view.getUint32(footer + FLAGS, true) !== 0) throw badImage(`${what} has flags that are not known`);
  const declared = Number(view.getBigUint64(footer + CONTENT_END, true));
  if (declared + tailBytes !== byteLength || byteLength > PACK_BYTES_MAX) {
    throw badImage(`${what} has ${byteLength} bytes, its footer says ${declared} and ${tailBytes}`);
  }
  return new PackTable(name, byteLength, tail.subarray(0, footer)).check(declared);
}

/** A pack's name as messages have it: enough of it to find it. */
export function packText(name: string): string {
  return `pack ${name.slice(0, 16)}`;
}

function checkEntry(bytes: Uint8Array, view: DataView, at: number, what: string): void {
  const storedBytes = view.getUint32(at + STORED, true);
  const contentBytes = view.getUint32(at + CONTENT, true);
  const encoding: Encoding | undefined = ENCODINGS[bytes[at + ENCODING]!];
  const kind = PACK_KINDS[bytes[at + KIND]!];
  if (encoding === undefined || kind === undefined || view.getUint16(at + KIND + 1, true) !== 0) {
    throw badImage(`${what} has an entry of a kind that is not known`);
  }
  const contentMax = kind === "root" ? ROOT_BYTES_MAX : ATTACHMENT_BYTES_MAX;
  if (storedBytes > contentBytes || contentBytes > contentMax) {
    throw badImage(`${what} has an entry of ${storedBytes} bytes for ${contentBytes}`);
  }
  if (encoding === "raw" && storedBytes !== contentBytes) {
    throw badImage(
      `${what} has an entry that is stored as it is, in ${storedBytes} of ${contentBytes} bytes`,
    );
  }
}
