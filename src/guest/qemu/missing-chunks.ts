// Chunks of an image that cannot be read, or are not right, while a machine is served from it. Nothing of them is sent and
// everything else is; they are tried again until they come, or until the machine cannot go on without them.
//
//   failed ──▶ missing ── tried again, by an image that is opened anew ──▶ come: their pages are sent
//                 └ a guest waits for it, or nothing else is left to be sent, and patience is over ──▶ given up
//
// Opened anew, since whoever mends an image replaces its files: one that was opened before has the old ones.

import { setImmediate as nextTurn } from "node:timers/promises";
import { MinorfaultError } from "../../base/errors.ts";
import type { PageContent, PageRange } from "./page-content.ts";
import type { PageReader } from "./page-reader.ts";
import { PAGE_BYTES } from "./stream-format.ts";

/** Between two rounds of trying; twice as long after each in which nothing came. */
const PAUSE_MS = 50;
const PAUSE_MS_MAX = 1000;
/** LIMIT: chunks of a round that fail though no guest waits for them: the others have their turn in the next one. */
const FAILURES_MAX = 16;
/** LIMIT: a round, after which it is looked whether patience is over. One read may last longer: as its source allows. */
const ROUND_MS = 1000;
/** LIMIT: how long a guest, or a transfer that lacks nothing else, waits for a chunk. */
const PATIENCE_MS = 30_000;

/** What is told of a chunk: that it cannot be had, or, without `error`, that it has come. */
export interface MissingChunk {
  readonly chunk: number;
  /** Its pages, as far as they are one block's. */
  readonly pages: PageRange;
  readonly error?: MinorfaultError;
}

export interface MissingChunksOptions {
  readonly chunkBytes: number;
  /** Default 30 s. */
  readonly patienceMs?: number | undefined;
  /** Reads the image as it is now; closed after a round. */
  readonly open: (signal: AbortSignal) => Promise<PageReader>;
  /** Whether pages can be sent at the moment. */
  readonly isServing: () => boolean;
  /** Takes pages that have come after all. */
  readonly give: (content: PageContent) => void;
  readonly tell?: ((chunk: MissingChunk) => void) | undefined;
  /** Whether nothing is left to be sent but what is missing. */
  readonly isAllElseSent: () => boolean;
  /** The machine cannot go on without what is missing. */
  readonly giveUp: (error: MinorfaultError) => void;
}

interface Missing {
  readonly pages: PageRange;
  readonly since: number;
  error: MinorfaultError;
  /** When a guest began to wait for it. */
  waitedSince: number | undefined;
}

export class MissingChunks {
  readonly #options: MissingChunksOptions;
  readonly #patienceMs: number;
  /** By first page, those tried longest ago first. */
  readonly #missing = new Map<number, Missing>();
  readonly #abort = new AbortController();
  #timer: NodeJS.Timeout | undefined;
  #pauseMs = PAUSE_MS;

  constructor(options: MissingChunksOptions) {
    this.#options = options;
    this.#patienceMs = options.patienceMs ?? PATIENCE_MS;
  }

  /** The pages of a chunk could not be had; `isWaited`: a guest waits for them. */
  add(pages: PageRange, error: MinorfaultError, isWaited: boolean): void {
    const now = performance.now();
    const known = this.#missing.get(pages.first);
    if (known !== undefined) {
      known.error = error;
      if (isWaited) known.waitedSince ??= now;
      return;
    }
    this.#missing.set(pages.first, { pages, error, since: now, waitedSince: isWaited ? now : undefined });
    this.#options.tell?.({ chunk: this.#chunkOf(pages), pages, error });
    this.#pauseMs = PAUSE_MS;
    this.#continue();
  }

  /** The connection is gone: over the next one QEMU says again what its guest waits for. */
  forgetWaiting(): void {
    for (const missing of this.#missing.values()) missing.waitedSince = undefined;
  }

  close(): void {
    this.#abort.abort();
    clearTimeout(this.#timer);
  }

  #continue(): void {
    if (this.#timer !== undefined || this.#missing.size === 0 || this.#abort.signal.aborted) return;
    this.#timer = setTimeout(() => {
      void this.#round().finally(() => {
        this.#timer = undefined;
        this.#continue();
      });
    }, this.#pauseMs);
  }

  async #round(): Promise<void> {
    if (!this.#options.isServing()) return;
    const before = this.#missing.size;
    try {
      const reader = await this.#options.open(this.#abort.signal);
      await this.#tryAll(reader).finally(() => reader.close());
    } catch {
      // An image that cannot be opened has as little as before; the reason that counts is that of the chunk.
    }
    const hasCome = this.#missing.size < before;
    this.#pauseMs = hasCome ? PAUSE_MS : Math.min(PAUSE_MS_MAX, this.#pauseMs * 2);
    if (this.#options.isServing() && !this.#abort.signal.aborted) this.#judge();
  }

  async #tryAll(reader: PageReader): Promise<void> {
    const until = performance.now() + ROUND_MS;
    const all = [...this.#missing.values()];
    const isWaited = ({ waitedSince }: Missing): boolean => waitedSince !== undefined;
    let failures = 0;
    for (const missing of [...all.filter(isWaited), ...all.filter((each) => !isWaited(each))]) {
      if (failures === FAILURES_MAX || performance.now() > until) return;
      if (!(await this.#try(reader, missing)) && !isWaited(missing)) failures++;
      // A guest that asks for something else meanwhile is heard.
      await nextTurn();
    }
  }

  /** Whether it has come. */
  async #try(reader: PageReader, missing: Missing): Promise<boolean> {
    const { signal } = this.#abort;
    const { pages } = missing;
    let content: PageContent;
    try {
      content = await reader.read(pages, signal);
    } catch (error) {
      if (error instanceof MinorfaultError) missing.error = error;
      // The last one in the next round.
      this.#missing.delete(pages.first);
      this.#missing.set(pages.first, missing);
      return false;
    }
    if (signal.aborted || !this.#options.isServing()) return false;
    this.#missing.delete(pages.first);
    this.#options.give(content);
    this.#options.tell?.({ chunk: this.#chunkOf(pages), pages });
    return true;
  }

  #judge(): void {
    const isAllElseSent = this.#options.isAllElseSent();
    const until = performance.now() - this.#patienceMs;
    const all = [...this.#missing.values()];
    const isOver = ({ since, waitedSince }: Missing): boolean =>
      (waitedSince !== undefined && waitedSince <= until) || (isAllElseSent && since <= until);
    const first = all.find(isOver);
    if (first === undefined) return;
    const { code, message } = first.error;
    const others = all.length === 1 ? "" : `, and ${all.length - 1} more chunks cannot be had`;
    this.#options.giveUp(
      new MinorfaultError(code, `${message}${others}`, {
        cause: first.error,
        hint: "`minorfault image verify` names what is damaged or lacking; put the packs that it names back from a copy",
      }),
    );
  }

  #chunkOf({ first }: PageRange): number {
    return Math.floor((first * PAGE_BYTES) / this.#options.chunkBytes);
  }
}
