// The numbers of QEMU's migration stream, and the tables that say what this reader knows. Everything is big endian.
//
//   'QEVM' 3 │ 07 configuration │ 01 start "ram" │ 02 part … │ 03 end │ 04 device, 04 device, … │ 00 │ 06 description
//
// What is in no table is refused by its name and its offset: a stream is understood wholly, or not used at all.

export const MAGIC = 0x5145564d;
export const VERSION = 3;

/** The pages that RAM is sent in; the only ones that x86 has. */
export const PAGE_BYTES = 4096;
export const PAGE_BITS = 12;
/** Of a region whose block lies in huge pages, of whatever size. */
export const HUGE_PAGE_BYTES = 2097152;

/** First byte of everything on the top level of a stream. */
export const SECTION = {
  end: 0x00,
  start: 0x01,
  part: 0x02,
  finish: 0x03,
  full: 0x04,
  subsection: 0x05,
  description: 0x06,
  configuration: 0x07,
  command: 0x08,
  footer: 0x7e,
} as const;

/** RAM, which is sent in parts while a machine runs. */
export const RAM_SECTION = { name: "ram", instance: 0, version: 4 } as const;

/** All sections that are sent in parts whose bodies this reader understands. */
export const LIVE_SECTIONS: readonly (typeof RAM_SECTION)[] = [RAM_SECTION];

/** What stands behind the machine's name in CONFIGURATION. */
export const CONFIGURATION_PARTS = {
  "configuration/target-page-bits": "page bits",
  "configuration/capabilities": "capabilities",
  "configuration/uuid": "uuid",
} as const satisfies Record<string, "page bits" | "capabilities" | "uuid">;

/** Low bits of the first word of a record of RAM: the rest of it is an offset in the block. */
export const RAM = {
  zero: 0x02,
  sizes: 0x04,
  page: 0x08,
  end: 0x10,
  sameBlock: 0x20,
  xbzrle: 0x40,
  hook: 0x80,
  compressed: 0x100,
  multifdFlush: 0x200,
} as const;

/** Records that only exist with a capability that puts pages where this reader does not see or cannot undo them. */
export const RAM_REFUSED: readonly { readonly flag: number; readonly capability: string }[] = [
  { flag: RAM.xbzrle, capability: "xbzrle" },
  { flag: RAM.hook, capability: "rdma" },
  { flag: RAM.compressed, capability: "compress" },
  { flag: RAM.multifdFlush, capability: "multifd" },
];

/** Capabilities of a stream that change nothing for its reader, or what it knows how to handle. */
export const CAPABILITIES_KNOWN: ReadonlySet<string> = new Set(["mapped-ram"]);

/** Commands and the bytes that each carries; undefined: as many as it says. */
export const COMMANDS = {
  "open-return-path": { number: 1, byteLength: 0 },
  ping: { number: 2, byteLength: 4 },
  "postcopy-advise": { number: 3, byteLength: 16 },
  "postcopy-listen": { number: 4, byteLength: 0 },
  "postcopy-run": { number: 5, byteLength: 0 },
  "postcopy-discard": { number: 6, byteLength: undefined },
  packaged: { number: 7, byteLength: 4 },
  "enable-colo": { number: 8, byteLength: 0 },
  "postcopy-resume": { number: 9, byteLength: 0 },
  "recv-bitmap": { number: 10, byteLength: undefined },
  "switchover-start": { number: 11, byteLength: 0 },
} as const satisfies Record<string, { readonly number: number; readonly byteLength: number | undefined }>;

export type CommandName = keyof typeof COMMANDS;

/** The header of mapped-ram behind a block's length. */
export const MAPPED_VERSION = 1;

/** LIMIT: names have one byte of length; a machine's name has four, of which so many are believed. */
export const MACHINE_NAME_BYTES_MAX = 255;
/** LIMIT: subsections of CONFIGURATION, and capabilities that one of them names. */
export const CONFIGURATION_PARTS_MAX = 16;
export const CAPABILITIES_MAX = 256;
/** LIMIT: blocks of RAM, and bytes of all of them. */
export const BLOCKS_MAX = 4096;
export const RAM_BYTES_MAX: number = 2 ** 42;
/** LIMIT: bytes of the device state and of what describes it, which are held in memory. */
export const DEVICES_BYTES_MAX: number = 64 * 2 ** 20;
/** LIMIT: ranges of one discard; QEMU itself sends 12. */
export const DISCARD_RANGES_MAX = 12;

/** A block of RAM as a stream lists it. */
export interface RamBlock {
  readonly name: string;
  /** Bytes in use. */
  readonly byteLength: number;
  /** Of the host, where the stream says it: for blocks of huge pages with post-copy. */
  readonly pageSize?: number;
  readonly mapped?: MappedBlock;
}

/** Where a block lies in a file with mapped-ram: offsets in the file. Both are 0 for a block that was left out. */
export interface MappedBlock {
  readonly bitmapOffset: number;
  readonly pagesOffset: number;
}

export interface Configuration {
  readonly machine: string;
  readonly capabilities: readonly string[];
  /** 16 bytes as QEMU prints them. */
  readonly uuid?: string;
  /** The section with its first byte, as a destination wants it: without capabilities. */
  readonly bytes: Uint8Array;
}

/** Bytes from `start` on, in a block. */
export interface DiscardRange {
  readonly start: number;
  readonly byteLength: number;
}

export type Command =
  | { readonly name: "open-return-path" | "postcopy-listen" | "postcopy-run" | "enable-colo" }
  | { readonly name: "postcopy-resume" | "switchover-start" }
  | { readonly name: "ping"; readonly value: number }
  | { readonly name: "postcopy-advise"; readonly pageSizes: number; readonly targetPageSize: number }
  | { readonly name: "postcopy-discard"; readonly block: string; readonly ranges: readonly DiscardRange[] }
  | { readonly name: "packaged"; readonly bytes: Uint8Array }
  | { readonly name: "recv-bitmap"; readonly block: string };
