// Installs what a replay brings ahead of the guest, piece by piece, and puts the rest off when the system says so.
//
// Its runs are mostly single pages, and many: so nothing is made for one, copies are made many in one step, and nobody is
// woken by them. A thread that were woken in the midst of a piece would go as far as the next page of it, and that for
// each page: whoever calls `install` looks after the faults that it has met. A piece that was put off is gone through
// again from its start, where what is resident is passed over.

import { PAGE_SIZE } from "../../abi/memory.ts";
import type { MinorfaultError } from "../../base/errors.ts";
import type { Unproven } from "../../image/content.ts";
import { RUN_PAGES, ZERO_RUN } from "../../image/working-set.ts";
import { COPIES_MAX, type CopyList } from "../copy-list.ts";
import type { FaultLoop } from "../fault-loop.ts";
import { errorOf, noteOf } from "../notes.ts";
import { addressOfPage, type Part, untilPage } from "../regions.ts";
import { REPLAY_BYTES, type ReplayPiece } from "./link.ts";
import type { Prover } from "./proving.ts";

/** Whose memory is filled. */
export interface Replayed {
  readonly loop: FaultLoop;
  bytesReplayed: number;
}

interface Piece {
  readonly piece: ReplayPiece;
  /** Those who have left are not among them any more. */
  readonly everybody: Iterable<Replayed>;
  /** Who has it already. */
  readonly served: Replayed[];
  readonly after: (wrong?: MinorfaultError) => void;
}

export class ReplayInstaller {
  /** Where slot 0 of the replay is. */
  readonly #staging: number;
  readonly #prover: Prover;
  readonly #todo: Piece[] = [];
  readonly #listed = new Listed();
  /** The last `install` was put off by the system. */
  isPutOff = false;

  constructor(staging: number, prover: Prover) {
    this.#staging = staging;
    this.#prover = prover;
  }

  get isBusy(): boolean {
    return this.#todo.length > 0;
  }

  /**
   * Takes a piece for everybody who waits for it; `install` does it, and then what comes `after`. Of one whose bytes turn out
   * to be wrong nothing is installed.
   */
  take(piece: ReplayPiece, everybody: Iterable<Replayed>, after: (wrong?: MinorfaultError) => void): void {
    this.#todo.push({ piece, everybody, served: [], after });
  }

  /** Goes on for about so many bytes, or until the system puts it off; answers how many. */
  install(bytesMax: number): number {
    let bytes = 0;
    this.isPutOff = false;
    for (let piece = this.#todo[0]; piece !== undefined; piece = this.#todo[0]) {
      const { unproven } = piece.piece;
      if (unproven !== undefined) {
        // A slice of its own: those who wait for what has been installed come first.
        if (bytes > 0) return bytes;
        bytes = unproven.byteLength;
        if (!this.#prove(piece, unproven)) continue;
      }
      for (const whose of piece.everybody) {
        if (piece.served.includes(whose)) continue;
        if (bytes >= bytesMax) return bytes;
        const installed = this.#installPiece(whose, piece);
        bytes += installed;
        if (this.isPutOff) return bytes;
        whose.bytesReplayed += installed;
        piece.served.push(whose);
      }
      this.#todo.shift();
      piece.after();
    }
    return bytes;
  }

  #prove({ piece, after }: Piece, unproven: Unproven): boolean {
    try {
      this.#prover.prove(piece.slot, unproven);
      piece.unproven = undefined;
      return true;
    } catch (error) {
      this.#todo.shift();
      after(errorOf(noteOf(error)));
      return false;
    }
  }

  #installPiece(whose: Replayed, { piece: { slot, runs } }: Piece): number {
    const { installer, regions } = whose.loop;
    let bytes = 0;
    for (const part of regions.parts) {
      // Faults will bring what is missing where something was moved meanwhile.
      if (installer.isGuestGone || this.isPutOff) break;
      bytes += this.#installPart(whose.loop, part, runs, this.#staging + slot * REPLAY_BYTES);
    }
    return bytes;
  }

  /** Installs the runs' whole pages that are in a part, from where their bytes lie one after the other. */
  #installPart(loop: FaultLoop, part: Part, runs: Uint32Array, staging: number): number {
    const { imageOffset, pageSize } = part.region;
    const { firstPage } = part;
    const lastUntil = untilPage(part);
    let address = staging;
    let pages = 0;
    for (let at = 0; at < runs.length; at += 2) {
      const offset = runs[at]! * PAGE_SIZE - imageOffset;
      const run = runs[at + 1]!;
      const byteLength = (run & RUN_PAGES) * PAGE_SIZE;
      const first = Math.max(firstPage, Math.ceil(offset / pageSize));
      const until = Math.min(lastUntil, Math.floor((offset + byteLength) / pageSize));
      if (first < until) {
        if (run >= ZERO_RUN) this.#installZeros(loop, part, first, until);
        else this.#place(loop, part, first, until, address + first * pageSize - offset);
        pages += until - first;
      }
      if (this.isPutOff) break;
      if (run < ZERO_RUN) address += byteLength;
    }
    this.isPutOff = this.#listed.settle(loop) || this.isPutOff;
    return pages * pageSize;
  }

  #installZeros({ installer }: FaultLoop, part: Part, first: number, until: number): void {
    part.region.knowZeros(first, until);
    installer.install(part, first, until);
    this.isPutOff = installer.isPutOff;
  }

  #place(loop: FaultLoop, part: Part, first: number, until: number, address: number): void {
    const { port, installer } = loop;
    if (port.copies !== undefined && installer.isUntouched(part, first, until)) {
      this.isPutOff = this.#listed.add(loop, port.copies, part, first, until, address);
    } else {
      installer.place(part, first, until, address);
      this.isPutOff = installer.isPutOff;
    }
  }
}

/** Runs of a loop that are to be copied in one step. */
class Listed {
  readonly #parts: Part[] = [];
  readonly #firsts = new Float64Array(COPIES_MAX);
  readonly #untils = new Float64Array(COPIES_MAX);
  readonly #addresses = new Float64Array(COPIES_MAX);
  #copies: CopyList | undefined;

  /** Answers whether the system has put something off. */
  add(loop: FaultLoop, copies: CopyList, part: Part, first: number, until: number, address: number): boolean {
    const index = this.#parts.length;
    this.#parts.push(part);
    this.#firsts[index] = first;
    this.#untils[index] = until;
    this.#addresses[index] = address;
    this.#copies = copies;
    const byteLength = (until - first) * part.region.pageSize;
    copies.add(loop.port.fd, addressOfPage(part, first), address, byteLength);
    return copies.isFull && this.settle(loop);
  }

  /** Makes the copies. From the first one on that fails they are made one by one, which knows what to do about it. */
  settle({ installer }: FaultLoop): boolean {
    const done = this.#copies?.run() ?? 0;
    let isPutOff = false;
    for (let index = 0; index < this.#parts.length && !isPutOff; index++) {
      const part = this.#parts[index]!;
      const [first, until] = [this.#firsts[index]!, this.#untils[index]!];
      if (index < done) {
        installer.bookPlaced(part, first, until);
      } else {
        installer.place(part, first, until, this.#addresses[index]!);
        isPutOff = installer.isPutOff;
      }
    }
    this.#parts.length = 0;
    return isPutOff;
  }
}
