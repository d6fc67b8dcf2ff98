// Fetches for whoever installs everything: keeps so many units on their way, and meanwhile reads what comes behind them in
// this thread, where that can be. Of what has to be verified and decoded two threads do more than one.
//
//   installed ▓▓▓▓▓▓▓░░░░░░░░░░░░░░░░▓▓▓▓▓▓▓▓▓▓ ──▶ this thread
//                    on their way: the other one's

import { hasBit } from "../../base/bitmap.ts";
import type { Part } from "../regions.ts";
import type { FetchClient } from "./client.ts";
import { RANK, type Rank } from "./machine.ts";
import { isResident, knowZeros, pagesWithin } from "./unit-pages.ts";

export interface BulkFetchOptions {
  readonly byteLength: number;
  readonly unitBytes: number;
  /** Units that may be on their way at once. */
  readonly fetchesMax: number;
  readonly holes: Uint32Array;
  /** Whether a unit's bytes are there, or on their way. */
  readonly isKnown: (unit: number) => boolean;
  readonly want: (client: FetchClient, unit: number, rank: Exclude<Rank, 0>) => boolean;
  /** Reads the unit of a page at once, for an install that follows; false: it can't be read so. */
  readonly readDirectly: (part: Part, page: number) => boolean;
  /** Whether this thread is to read as well. */
  readonly helps: boolean;
  /** Called once, when most of the source is going to be asked for. */
  readonly onWhole: () => void;
}

export class BulkFetch {
  /** Most of the source is asked for. */
  isWhole = false;
  readonly #options: BulkFetchOptions;
  #part: Part | undefined;
  /** Where `#readBehind` goes on in it. */
  #unit = 0;
  /** What has been asked for of it ends here. */
  #askedUntil = 0;

  constructor(options: BulkFetchOptions) {
    this.#options = options;
  }

  /** Goes on from a unit that is away, up to the last one; answers whether something has been installed. */
  goOn(client: FetchClient, part: Part, unit: number, last: number): boolean {
    const { byteLength, fetchesMax, unitBytes, isKnown, want, helps, onWhole } = this.#options;
    if (!this.isWhole && (last - unit + 1) * unitBytes > byteLength / 2) {
      this.isWhole = true;
      onWhole();
    }
    if (this.#part !== part) this.#begin(part);
    // Once half of what was asked for is there, the other half is on its way, and it is time to ask for more.
    const ahead = 2 * fetchesMax;
    const isComing = isKnown(unit);
    const isUnderWay = isComing && isKnown(Math.min(last, unit + fetchesMax));
    // One that does not come was given up: what is behind it may have been as well.
    let next = isComing ? Math.max(unit, this.#askedUntil) : unit;
    for (; !isUnderWay && next <= Math.min(last, unit + ahead); next++) {
      if (isResident(pagesWithin(part, next, unitBytes))) continue;
      if (!want(client, next, RANK.BACKGROUND)) break;
    }
    this.#askedUntil = next;
    return helps && this.#readBehind(client, part, unit + ahead + 1, last);
  }

  #begin(part: Part): void {
    this.#part = part;
    this.#unit = 0;
    this.#askedUntil = 0;
  }

  #readBehind(client: FetchClient, part: Part, first: number, last: number): boolean {
    const { unitBytes, holes, isKnown, readDirectly } = this.#options;
    for (let unit = Math.max(first, this.#unit); unit <= last; unit++) {
      this.#unit = unit + 1;
      const pages = pagesWithin(part, unit, unitBytes);
      if (isResident(pages) || hasBit(holes, unit) || isKnown(unit)) continue;
      if (!readDirectly(part, pages.first)) return false;
      if (hasBit(holes, unit)) knowZeros(part, unit, unitBytes);
      client.loop.installer.install(part, pages.first, pages.until);
      return true;
    }
    return false;
  }
}
