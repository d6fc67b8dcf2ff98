// A range of this process's addresses that several threads of JavaScript look into, and that must not go away
// under any of their views.
//
//   open     ── close() ──▶   fresh zero pages, which cost    ── last view of any ──▶   address range
//   content                   nothing until written; a           thread collected        unmapped
//                             stale view reads zeros
//
// One shared word counts the views of all threads and knows whether the range is closed. A thread that ends without
// collecting its views keeps the range reserved for good: addresses, but no memory.

import { HUGE_PAGE_SIZE, MAP, PROT } from "../abi/memory.ts";
import { MinorfaultError } from "../base/errors.ts";
import { roundUp } from "../base/range.ts";
import { local } from "./local.ts";
import { mmap, munmap } from "./mappings.ts";
import { viewMemory } from "./view.ts";

const CLOSED = 2 ** 30;

/** What another thread needs to look into the same range: can be posted to it. */
export interface AddressRangeHandle {
  readonly address: number;
  readonly byteLength: number;
  readonly state: Int32Array;
}

/** Counts the view out, when it has been collected. The value must not hold on to the view. */
const collected = new FinalizationRegistry<AddressRangeHandle>((handle) => release(handle, 1));

export class AddressRange {
  readonly handle: AddressRangeHandle;

  /** A range that another thread has made. */
  constructor(handle: AddressRangeHandle) {
    this.handle = handle;
  }

  /** Reserves addresses for private memory; nothing is committed. `byteLength` must be whole pages. */
  static reserve(byteLength: number, protection: number = PROT.READ | PROT.WRITE): AddressRange {
    const flags = MAP.PRIVATE | MAP.ANONYMOUS | MAP.NORESERVE;
    if (byteLength < HUGE_PAGE_SIZE) {
      return AddressRange.adopt(mmap(local, byteLength, { protection, flags }), byteLength);
    }
    // So that whole huge pages may be put there, the range begins with one: what is too much is given back.
    const mapped = mmap(local, byteLength + HUGE_PAGE_SIZE, { protection, flags });
    const address = roundUp(mapped, HUGE_PAGE_SIZE);
    const before = address - mapped;
    if (before > 0) munmap(local, mapped, before);
    munmap(local, address + byteLength, HUGE_PAGE_SIZE - before);
    return AddressRange.adopt(address, byteLength);
  }

  /** Takes over a mapping that exists. */
  static adopt(address: number, byteLength: number): AddressRange {
    return new AddressRange({ address, byteLength, state: new Int32Array(new SharedArrayBuffer(4)) });
  }

  get address(): number {
    return this.handle.address;
  }

  get byteLength(): number {
    return this.handle.byteLength;
  }

  get isClosed(): boolean {
    return Atomics.load(this.handle.state, 0) >= CLOSED;
  }

  /**
   * A new view of a part. `mayMove`: nothing keeps its bytes from being transferred to another buffer, of which we would
   * not hear: then the addresses are never given back.
   */
  view(offset: number, byteLength: number, mayMove = false): ArrayBuffer {
    const { address, state } = this.handle;
    if (!(offset >= 0 && byteLength > 0 && offset + byteLength <= this.byteLength)) {
      throw new MinorfaultError(
        "ERR_OUT_OF_RANGE",
        `${byteLength} bytes at ${offset} are not within the ${this.byteLength} bytes of this memory`,
        { byteLength },
      );
    }
    for (;;) {
      const count = Atomics.load(state, 0);
      if (count >= CLOSED) throw new MinorfaultError("ERR_CLOSED", "This memory has been closed");
      if (Atomics.compareExchange(state, 0, count, count + 1) === count) break;
    }
    try {
      const buffer = viewMemory(address + offset, byteLength);
      if (!mayMove) collected.register(buffer, this.handle);
      return buffer;
    } catch (error) {
      release(this.handle, 1);
      throw error;
    }
  }

  /** Replaces the content by zeros, at once and for everybody. Safe to call twice. */
  close(): void {
    if (this.isClosed) return;
    const { address, byteLength } = this.handle;
    const flags = MAP.FIXED | MAP.PRIVATE | MAP.ANONYMOUS | MAP.NORESERVE;
    mmap(local, byteLength, { flags, at: address });
    release(this.handle, -CLOSED);
  }
}

/** Takes something off the count; whoever brings it to none in a closed range unmaps it. */
function release({ address, byteLength, state }: AddressRangeHandle, amount: number): void {
  if (Atomics.sub(state, 0, amount) - amount === CLOSED) local.call("munmap", address, byteLength);
}
