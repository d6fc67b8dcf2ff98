// Pieces that have been read and wait to be sent, the first one first: given bit by bit, so that what a guest asks for
// meanwhile stands behind little. A piece's memory is given back when the last part of it has left.

import { type PageContent, type Pages, runAt } from "./page-content.ts";

class Piece {
  readonly #content: PageContent;
  #index = 0;
  /** Parts that are on their way, and one for what has not been taken yet. */
  #holders = 1;

  constructor(content: PageContent) {
    this.#content = content;
  }

  get memory(): ArrayBufferLike {
    return this.#content.bytes.buffer;
  }

  get isTaken(): boolean {
    return this.#index === this.#content.count;
  }

  take(pagesMax: number): Pages {
    const run = runAt(this.#content, this.#index, pagesMax);
    this.#index += run.count;
    return run;
  }

  hold(): void {
    this.#holders++;
  }

  letGo(): void {
    if (--this.#holders === 0) this.#content.release();
  }
}

export class PushQueue {
  readonly #waiting: Piece[] = [];
  /** All whose memory is in use, by that. */
  readonly #pieces = new Map<ArrayBufferLike, Piece>();

  get isEmpty(): boolean {
    return this.#waiting.length === 0;
  }

  add(content: PageContent): void {
    const piece = new Piece({
      ...content,
      release: () => {
        this.#pieces.delete(piece.memory);
        content.release();
      },
    });
    this.#pieces.set(piece.memory, piece);
    this.#waiting.push(piece);
  }

  /** Hands on the next pages, of one kind and at most so many. */
  take(pagesMax: number, give: (pages: Pages) => void): void {
    const piece = this.#waiting[0]!;
    give(piece.take(pagesMax));
    if (!piece.isTaken) return;
    this.#waiting.shift();
    piece.letGo();
  }

  /** Bytes are on their way out, which may be a part of a piece. */
  leaving(bytes: Uint8Array): void {
    this.#pieces.get(bytes.buffer)?.hold();
  }

  /** They have left. */
  left(bytes: Uint8Array): void {
    this.#pieces.get(bytes.buffer)?.letGo();
  }
}
