// The structs that the ioctls take, as tables of fields, and one codec for all of them.
//
// Every field is 64 bits, little-endian, at its natural offset: no struct of the header has padding.
// A field is written from a `Word` and read as a number when it is an address, a length or a signed result,
// and as a bigint when it is a mask or when it does not fit 53 bits (a caller may send any 64 bits, and a
// software kernel has to see exactly what was sent).

/** 64 bits handed to the system: a safe integer (negative ones in two's complement), or a bigint. */
export type Word = number | bigint;

export interface Struct<Field extends string> {
  readonly name: string;
  /** Bytes. */
  readonly size: number;
  /** Byte offset of each field. */
  readonly offset: Readonly<Record<Field, number>>;
  /** Writes the fields that are given, and leaves the others as they are. */
  write(view: DataView, at: number, fields: Partial<Readonly<Record<Field, Word>>>): void;
  /** All fields as unsigned 64-bit masks. */
  read(view: DataView, at?: number): Record<Field, bigint>;
}

function struct<const Field extends string>(name: string, fields: readonly Field[]): Struct<Field> {
  const offset = Object.fromEntries(fields.map((field, index) => [field, index * 8])) as Record<
    Field,
    number
  >;
  return {
    name,
    size: fields.length * 8,
    offset,
    write(view, at, values) {
      for (const field of fields) {
        const value = values[field];
        if (value !== undefined) writeWord(view, at + offset[field], value);
      }
    },
    read(view, at = 0) {
      const entries = fields.map((field) => [field, view.getBigUint64(at + offset[field], true)]);
      return Object.fromEntries(entries) as Record<Field, bigint>;
    },
  };
}

const TWO_32 = 0x1_0000_0000;

/** Writes 64 bits at a byte offset. Numbers take a path without bigints: this runs once a fault. */
export function writeWord(view: DataView, at: number, value: Word): void {
  if (typeof value === "bigint") {
    view.setBigUint64(at, BigInt.asUintN(64, value), true);
    return;
  }
  const high = Math.floor(value / TWO_32);
  view.setUint32(at, value - high * TWO_32, true);
  view.setInt32(at + 4, high, true);
}

/** Reads a signed 64-bit value; exact between -2^53 and 2^53. */
export function readSigned(view: DataView, at: number): number {
  return view.getInt32(at + 4, true) * TWO_32 + view.getUint32(at, true);
}

/** Reads an address, a length or an offset; exact below 2^53, which every user address is. */
export function readUnsigned(view: DataView, at: number): number {
  return view.getUint32(at + 4, true) * TWO_32 + view.getUint32(at, true);
}

/** The structs of <linux/userfaultfd.h>; `range` is spread into start and len where the header nests it. */
export const uffdio = {
  api: struct("uffdio_api", ["api", "features", "ioctls"]),
  range: struct("uffdio_range", ["start", "len"]),
  register: struct("uffdio_register", ["start", "len", "mode", "ioctls"]),
  copy: struct("uffdio_copy", ["dst", "src", "len", "mode", "copy"]),
  zeropage: struct("uffdio_zeropage", ["start", "len", "mode", "zeropage"]),
  writeprotect: struct("uffdio_writeprotect", ["start", "len", "mode"]),
  continue: struct("uffdio_continue", ["start", "len", "mode", "mapped"]),
  poison: struct("uffdio_poison", ["start", "len", "mode", "updated"]),
  move: struct("uffdio_move", ["dst", "src", "len", "mode", "move"]),
  setMode: struct("uffdio_set_mode", ["enable", "disable"]),
} as const;

/** The argument of PAGEMAP_SCAN. */
export const pmScanArg: Struct<
  | "size"
  | "flags"
  | "start"
  | "end"
  | "walk_end"
  | "vec"
  | "vec_len"
  | "max_pages"
  | "category_inverted"
  | "category_mask"
  | "category_anyof_mask"
  | "return_mask"
> = struct("pm_scan_arg", [
  "size",
  "flags",
  "start",
  "end",
  "walk_end",
  "vec",
  "vec_len",
  "max_pages",
  "category_inverted",
  "category_mask",
  "category_anyof_mask",
  "return_mask",
]);

/** One answer of PAGEMAP_SCAN: pages from start until end that share the categories. */
export const pageRegion: Struct<"start" | "end" | "categories"> = struct("page_region", [
  "start",
  "end",
  "categories",
]);
