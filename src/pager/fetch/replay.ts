// Installs what a replay brings ahead of the guest, piece by piece, and puts the rest off when the system says so.
//
// Its runs are mostly single pages, and many: so nothing is made for one, and a run that was put off is gone through
// again from its start, where what is resident is passed over.

import { PAGE_SIZE } from "../../abi/memory.ts";
import { RUN_PAGES, ZERO_RUN } from "../../image/working-set.ts";
import type { FaultLoop } from "../fault-loop.ts";
import { untilPage } from "../regions.ts";
import { REPLAY_BYTES, type ReplayPiece } from "./link.ts";

/** Whose memory is filled. */
export interface Replayed {
  readonly loop: FaultLoop;
  bytesReplayed: number;
}

interface Piece {
  readonly slot: number;
  readonly runs: Uint32Array;
  /** Those who have left are not among them any more. */
  readonly everybody: Iterable<Replayed>;
  /** The next run, and where its bytes are. */
  at: number;
  address: number;
}

export class ReplayInstaller {
  /** Where slot 0 of the replay is. */
  readonly #staging: number;
  readonly #free: (slot: number) => void;
  readonly #todo: Piece[] = [];
  /** The last `install` was put off by the system. */
  isPutOff = false;

  constructor(staging: number, free: (slot: number) => void) {
    this.#staging = staging;
    this.#free = free;
  }

  get isBusy(): boolean {
    return this.#todo.length > 0;
  }

  /** Takes a piece for everybody who waits for it; `install` does it. */
  take({ slot, runs }: ReplayPiece, everybody: Iterable<Replayed>): void {
    this.#todo.push({ slot, runs, everybody, at: 0, address: this.#staging + slot * REPLAY_BYTES });
  }

  /** Goes on for about so many bytes, or until the system puts it off; answers how many. */
  install(bytesMax: number): number {
    let bytes = 0;
    this.isPutOff = false;
    for (let piece = this.#todo[0]; piece !== undefined; piece = this.#todo[0]) {
      while (piece.at < piece.runs.length) {
        if (bytes >= bytesMax) return bytes;
        const offset = piece.runs[piece.at]! * PAGE_SIZE;
        const run = piece.runs[piece.at + 1]!;
        const byteLength = (run & RUN_PAGES) * PAGE_SIZE;
        const isZero = run >= ZERO_RUN;
        for (const whose of piece.everybody) {
          bytes += this.#installRun(whose, offset, byteLength, isZero ? 0 : piece.address);
          if (this.isPutOff) return bytes;
        }
        piece.at += 2;
        if (!isZero) piece.address += byteLength;
      }
      this.#todo.shift();
      this.#free(piece.slot);
    }
    return bytes;
  }

  /** Installs a run's whole pages wherever they are in somebody's memory; `address` 0: they are zeros. */
  #installRun(whose: Replayed, offset: number, byteLength: number, address: number): number {
    const { installer, regions } = whose.loop;
    // Faults will bring what is missing where something was moved meanwhile.
    if (installer.isGuestGone) return 0;
    let bytes = 0;
    for (const part of regions.parts) {
      const { region } = part;
      const { imageOffset, pageSize } = region;
      const first = Math.max(part.firstPage, Math.ceil((offset - imageOffset) / pageSize));
      const end = Math.floor((offset + byteLength - imageOffset) / pageSize);
      const until = Math.min(untilPage(part), end);
      if (first >= until) continue;
      if (address === 0) {
        region.knowZeros(first, until);
        installer.install(part, first, until);
      } else {
        installer.place(part, first, until, address + first * pageSize + imageOffset - offset);
      }
      this.isPutOff = installer.isPutOff;
      if (this.isPutOff) return bytes;
      bytes += (until - first) * pageSize;
    }
    whose.bytesReplayed += bytes;
    return bytes;
  }
}
