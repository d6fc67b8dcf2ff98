// Memory of this process outside the JavaScript heap, with a view for JavaScript to look into.
//
// A view of unmapped memory would crash the whole process at its next use, and nobody can say when the last view is
// gone except the garbage collector. So closing goes in two steps:
//
//   open    ── close() ──▶   fresh zero pages, which cost   ── last view collected ──▶   address range
//   bytes                    nothing until written; a                                   unmapped
//                            stale view reads zeros

import { HUGE_PAGE_SIZE, MAP, PAGE_SIZE } from "../abi/memory.ts";
import type { Caller } from "../abi/system.ts";
import { MinorfaultError } from "../base/errors.ts";
import { roundUp } from "../base/range.ts";
import { HUGE_2MB, mmap } from "./mappings.ts";
import { native } from "./native.ts";

/** LIMIT: V8 before Node 22 aborts the process for an ArrayBuffer beyond this. */
export const VIEW_BYTES_MAX: number = 2 ** 32;

/** Memory of this process outside the JavaScript heap, and JavaScript's view of it. */
export interface Memory {
  readonly address: number;
  readonly byteLength: number;
  readonly bytes: Uint8Array;
  /** The same memory. */
  readonly view: DataView;
  /** After it, `bytes` and every view made from its buffer read zeros. Safe to call twice. */
  close(): void;
  [Symbol.dispose](): void;
}

export interface MapMemoryOptions {
  /** 2 MiB pages of the hugetlb pool. */
  readonly huge?: boolean;
  /** Shared anonymous memory (shmem) instead of private. */
  readonly shared?: boolean;
  /** Maps this file, shared. */
  readonly fd?: number;
  /** Bytes into the file at which the memory begins; default 0. */
  readonly offset?: number;
  /** At this address exactly; refused by the system if something is there. */
  readonly at?: number;
}

/**
 * Maps `byteLength` bytes, rounded up to whole pages, readable and writable. `caller` is this process: see `mapMemory`
 * in local.ts, which is what everybody else calls.
 */
export function mapMemoryBy(caller: Caller, byteLength: number, options: MapMemoryOptions = {}): Memory {
  if (!Number.isSafeInteger(byteLength) || byteLength <= 0) {
    throw new MinorfaultError(
      "ERR_BAD_ARGUMENT",
      `A length of memory is a positive integer, not ${byteLength}`,
    );
  }
  const mapped = roundUp(byteLength, options.huge ? HUGE_PAGE_SIZE : PAGE_SIZE);
  if (mapped > VIEW_BYTES_MAX) {
    throw new MinorfaultError(
      "ERR_OUT_OF_RANGE",
      `One piece of memory has at most ${VIEW_BYTES_MAX} bytes, not ${mapped}`,
      { byteLength: mapped, hint: "Map it in pieces" },
    );
  }
  const address = mmap(caller, mapped, {
    flags: mapFlags(options),
    ...(options.fd === undefined ? {} : { fd: options.fd, offset: options.offset ?? 0 }),
    ...(options.at === undefined ? {} : { at: options.at }),
  });
  return new MappedMemory(caller, address, mapped);
}

function mapFlags(options: MapMemoryOptions): number {
  const kind = options.fd !== undefined || options.shared ? MAP.SHARED : MAP.PRIVATE;
  // A huge file brings its page size along.
  const huge = options.huge && options.fd === undefined ? MAP.HUGETLB | HUGE_2MB : 0;
  const anonymous = options.fd === undefined ? MAP.ANONYMOUS : 0;
  return kind | anonymous | huge | (options.at === undefined ? 0 : MAP.FIXED_NOREPLACE);
}

/** Gives an address range back once no view can see it any more. */
const collected = new FinalizationRegistry<() => void>((release) => release());

class MappedMemory implements Memory {
  readonly address: number;
  readonly byteLength: number;
  readonly bytes: Uint8Array;
  readonly view: DataView;
  readonly #caller: Caller;
  #closed = false;

  constructor(caller: Caller, address: number, byteLength: number) {
    this.#caller = caller;
    this.address = address;
    this.byteLength = byteLength;
    // SAFETY: the range stays mapped until this very buffer has been collected (or the process ends).
    const buffer = native().view(address, byteLength);
    this.bytes = new Uint8Array(buffer);
    this.view = new DataView(buffer);
  }

  close(): void {
    if (this.#closed) return;
    const { address, byteLength } = this;
    const caller = this.#caller;
    const flags = MAP.FIXED | MAP.PRIVATE | MAP.ANONYMOUS | MAP.NORESERVE;
    mmap(caller, byteLength, { flags, at: address });
    this.#closed = true;
    // The function must not hold on to `this`: it would keep the buffer from ever being collected.
    collected.register(this.bytes.buffer, () => caller.call("munmap", address, byteLength));
  }

  [Symbol.dispose](): void {
    this.close();
  }
}
