// Huge host pages on their way: the 512 pages of one are sent one behind the other, so they are gathered first.

import { nextClear, setBits, wordsFor } from "../../base/bitmap.ts";
import { PAGE_BYTES } from "./stream-format.ts";

/** A host page of which all pages have come. */
export interface GatheredPage {
  readonly bytes: Uint8Array;
  readonly isZero: boolean;
}

interface Gathering {
  /** Undefined as long as nothing but zeros has come. */
  bytes: Uint8Array | undefined;
  readonly come: Uint32Array;
}

export class HostPages {
  readonly #gathering = new Map<number, Gathering>();

  /** Adds pages of the host page that begins with page `start`; gives it when it is whole. `bytes` undefined: zeros. */
  add(
    start: number,
    hostPages: number,
    first: number,
    count: number,
    bytes: Uint8Array | undefined,
  ): GatheredPage | undefined {
    let page = this.#gathering.get(start);
    if (page === undefined) {
      page = { bytes: undefined, come: new Uint32Array(wordsFor(hostPages)) };
      this.#gathering.set(start, page);
    }
    if (bytes !== undefined) {
      page.bytes ??= new Uint8Array(hostPages * PAGE_BYTES);
      page.bytes.set(bytes, (first - start) * PAGE_BYTES);
    } else if (page.bytes !== undefined) {
      page.bytes.fill(0, (first - start) * PAGE_BYTES, (first - start + count) * PAGE_BYTES);
    }
    setBits(page.come, first - start, first - start + count);
    if (nextClear(page.come, 0, hostPages) < hostPages) return undefined;
    this.#gathering.delete(start);
    return { bytes: page.bytes ?? new Uint8Array(0), isZero: page.bytes === undefined };
  }

  clear(): void {
    this.#gathering.clear();
  }
}
