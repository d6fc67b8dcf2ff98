// Installs what a replay brings ahead of the guest, piece by piece, and puts the rest off when the system says so.

import type { FaultLoop } from "../fault-loop.ts";
import { type Part, untilPage } from "../regions.ts";
import { REPLAY_BYTES, type ReplayPiece } from "./link.ts";

interface Run {
  readonly offset: number;
  readonly byteLength: number;
  /** Where the bytes are; 0: they are zeros. */
  readonly address: number;
}

/** Whose memory is filled. */
export interface Replayed {
  readonly loop: FaultLoop;
  bytesReplayed: number;
}

/** Some pages of a run, in one region's part. */
interface Placed {
  readonly whose: Replayed;
  readonly part: Part;
  readonly first: number;
  readonly until: number;
  readonly address: number;
}

interface Piece {
  readonly slot: number;
  placed: Placed[];
  /** How many of them are done. */
  done: number;
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
    const placed: Placed[] = [];
    let address = this.#staging + slot * REPLAY_BYTES;
    for (let at = 0; at < runs.length; at += 3) {
      const [offset = 0, byteLength = 0, isZero] = runs.slice(at, at + 3);
      const run = { offset, byteLength, address: isZero === 1 ? 0 : address };
      for (const whose of everybody) placed.push(...place(run, whose));
      if (isZero !== 1) address += byteLength;
    }
    this.#todo.push({ slot, placed, done: 0 });
  }

  /** Somebody has left. */
  forget(loop: FaultLoop): void {
    for (const piece of this.#todo) {
      piece.placed = piece.placed.slice(piece.done).filter(({ whose }) => whose.loop !== loop);
      piece.done = 0;
    }
  }

  /** Goes on for about so many bytes, or until the system puts it off; answers how many. */
  install(bytesMax: number): number {
    let bytes = 0;
    this.isPutOff = false;
    for (let piece = this.#todo[0]; piece !== undefined; piece = this.#todo[0]) {
      while (piece.done < piece.placed.length) {
        if (bytes >= bytesMax) return bytes;
        const run = piece.placed[piece.done]!;
        const pages = this.#installRun(run);
        bytes += pages * run.part.region.pageSize;
        if (this.isPutOff) {
          piece.placed[piece.done] = rest(run, pages);
          return bytes;
        }
        piece.done++;
      }
      this.#todo.shift();
      this.#free(piece.slot);
    }
    return bytes;
  }

  /** Answers how many pages are done. */
  #installRun({ whose, part, first, until, address }: Placed): number {
    const { installer, regions } = whose.loop;
    // Moved or gone meanwhile: faults will bring what is still needed.
    if (installer.isGuestGone || !regions.parts.includes(part)) return 0;
    if (address === 0) part.region.knowZeros(first, until);
    const page =
      address === 0 ? installer.install(part, first, until) : installer.place(part, first, until, address);
    whose.bytesReplayed += (page - first) * part.region.pageSize;
    this.isPutOff = installer.isPutOff;
    return page - first;
  }
}

function rest(run: Placed, pages: number): Placed {
  const { first, address, part } = run;
  return {
    ...run,
    first: first + pages,
    address: address === 0 ? 0 : address + pages * part.region.pageSize,
  };
}

/** Where a run's whole pages are in somebody's memory. */
function* place({ offset, byteLength, address }: Run, whose: Replayed): Generator<Placed> {
  for (const part of whose.loop.regions.parts) {
    const { imageOffset, pageSize } = part.region;
    const from = Math.ceil((offset - imageOffset) / pageSize);
    const first = Math.max(part.firstPage, from);
    const until = Math.min(untilPage(part), Math.floor((offset + byteLength - imageOffset) / pageSize));
    if (first >= until) continue;
    const at = address === 0 ? 0 : address + first * pageSize + imageOffset - offset;
    yield { whose, part, first, until, address: at };
  }
}
