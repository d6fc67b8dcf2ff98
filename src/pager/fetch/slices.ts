// Installs what nobody waits for, a slice at a time: the faults of all guests come in between.

import type { FetchClient } from "./client.ts";
import { type PartPages, pagesOf } from "./unit-pages.ts";

/** What is installed at once, in between looks for faults: a tenth of a millisecond's work. */
const SLICE_BYTES = 256 * 1024;

/** Units' pages in a client's memory. */
interface Piece extends PartPages {
  readonly client: FetchClient;
}

export class Slices {
  readonly #unitBytes: number;
  /** What is still to be installed of units that are there. */
  #todo: Piece[] = [];
  /** Bytes that may still be installed in this slice. */
  #allowance = SLICE_BYTES;
  #isPutOff = false;

  constructor(unitBytes: number) {
    this.#unitBytes = unitBytes;
  }

  /** A slice begins: with what the one before has left. */
  begin(): void {
    this.#allowance = SLICE_BYTES;
    this.#isPutOff = false;
    if (this.#todo.length === 0) return;
    const pieces = this.#todo;
    this.#todo = [];
    for (const piece of pieces) {
      // Moved or gone meanwhile: a fault will bring what is still needed.
      if (piece.client.loop.regions.parts.includes(piece.part)) this.#installPiece(piece);
    }
  }

  get allowance(): number {
    return this.#allowance;
  }

  /** Whether something has been left for the next slice. */
  get isBusy(): boolean {
    return this.#todo.length > 0;
  }

  /** Whether the system has put off what this slice wanted to install. */
  get isPutOff(): boolean {
    return this.#isPutOff;
  }

  /** Others have installed so many bytes in this slice. */
  spend(bytes: number, isPutOff: boolean): void {
    this.#allowance -= bytes;
    this.#isPutOff ||= isPutOff;
  }

  /** Installs what a client misses of units that are there, now or in one of the next slices. */
  install(client: FetchClient, unit: number, count = 1): void {
    const { parts } = client.loop.regions;
    for (const pages of pagesOf(parts, unit, this.#unitBytes, count))
      this.#installPiece({ client, ...pages });
  }

  /** Nothing is installed for a client any more. */
  remove(client: FetchClient): void {
    this.#todo = this.#todo.filter((piece) => piece.client !== client);
  }

  #installPiece(piece: Piece): void {
    const { client, part, first, until } = piece;
    if (this.#allowance <= 0) {
      this.#todo.push(piece);
      return;
    }
    const { installer } = client.loop;
    const page = installer.install(part, first, until);
    this.#allowance -= (page - first) * part.region.pageSize;
    if (!installer.isPutOff) return;
    this.#isPutOff = true;
    this.#todo.push({ ...piece, first: page });
  }
}
