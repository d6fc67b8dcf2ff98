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

/** Some pages of a run, in one region's part. */
interface Placed {
  readonly loop: FaultLoop;
  readonly part: Part;
  readonly first: number;
  readonly until: number;
  readonly address: number;
}

export class ReplayInstaller {
  /** Where slot 0 of the replay is. */
  readonly #staging: number;
  readonly #free: (slot: number) => void;
  readonly #todo: { readonly slot: number; readonly placed: Placed[] }[] = [];
  bytesInstalled = 0;

  constructor(staging: number, free: (slot: number) => void) {
    this.#staging = staging;
    this.#free = free;
  }

  get isPutOff(): boolean {
    return this.#todo.length > 0;
  }

  take({ slot, runs }: ReplayPiece, loops: Iterable<FaultLoop>): void {
    const placed: Placed[] = [];
    let address = this.#staging + slot * REPLAY_BYTES;
    for (let at = 0; at < runs.length; at += 3) {
      const [offset = 0, byteLength = 0, isZero] = runs.slice(at, at + 3);
      const run = { offset, byteLength, address: isZero === 1 ? 0 : address };
      for (const loop of loops) placed.push(...place(run, loop));
      if (isZero !== 1) address += byteLength;
    }
    this.#todo.push({ slot, placed });
    this.install();
  }

  /** Goes on until all is done or the system puts it off. */
  install(): void {
    for (let piece = this.#todo[0]; piece !== undefined; piece = this.#todo[0]) {
      for (let next = piece.placed.shift(); next !== undefined; next = piece.placed.shift()) {
        const rest = this.#installRun(next);
        if (rest === undefined) continue;
        piece.placed.unshift(rest);
        return;
      }
      this.#todo.shift();
      this.#free(piece.slot);
    }
  }

  #installRun(run: Placed): Placed | undefined {
    const { loop, part, first, until, address } = run;
    const { installer } = loop;
    // Moved or gone meanwhile: faults will bring what is still needed.
    if (installer.isGuestGone || !loop.regions.parts.includes(part)) return undefined;
    if (address === 0) part.region.knowZeros(first, until);
    const page =
      address === 0 ? installer.install(part, first, until) : installer.place(part, first, until, address);
    this.bytesInstalled += (page - first) * part.region.pageSize;
    if (!installer.isPutOff) return undefined;
    return {
      ...run,
      first: page,
      address: address === 0 ? 0 : address + (page - first) * part.region.pageSize,
    };
  }
}

/** Where a run's whole pages are in the memory of a loop. */
function* place({ offset, byteLength, address }: Run, loop: FaultLoop): Generator<Placed> {
  for (const part of loop.regions.parts) {
    const { imageOffset, pageSize } = part.region;
    const from = Math.ceil((offset - imageOffset) / pageSize);
    const first = Math.max(part.firstPage, from);
    const until = Math.min(untilPage(part), Math.floor((offset + byteLength - imageOffset) / pageSize));
    if (first >= until) continue;
    const at = address === 0 ? 0 : address + first * pageSize + imageOffset - offset;
    yield { loop, part, first, until, address: at };
  }
}
