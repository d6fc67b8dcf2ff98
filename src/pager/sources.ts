// The sources of a host's guests: each is opened once, however many guests have it, and closed when the last one has gone.

import { isDeepStrictEqual } from "node:util";
import type { MessagePort } from "node:worker_threads";
import { PAGE_SIZE } from "../abi/memory.ts";
import { MinorfaultError } from "../base/errors.ts";
import type { ServeOrder, SourceOrder } from "./control.ts";
import type { OpenedSource } from "./fetch/order.ts";
import { checkFetchOptions, openRemote, type Remote } from "./fetch/remote.ts";
import { KEPT_BYTES_MAX } from "./fetch/replays.ts";
import type { PagerSource, WarmSource } from "./options.ts";

/** LIMIT: bytes of what has been fetched for many guests and is kept for the next one that asks. */
const SHARED_STAGING_BYTES = 8 * 1024 * 1024;

export interface SourcesOptions {
  readonly send: (order: ServeOrder, transfer?: readonly MessagePort[]) => void;
  /** There is one guest: its replay begins with the opening, and its bytes are kept for nobody else. */
  readonly isSole: boolean;
  /** Resolves when the serving thread has ended. */
  readonly ended: Promise<unknown>;
}

export interface GuestSource {
  readonly order: SourceOrder;
  release(): Promise<void>;
}

interface Shared {
  readonly source: number;
  readonly what: object;
  readonly remote: Promise<Remote>;
  users: number;
  /** Nobody new is to have it. */
  isRetired: boolean;
  isSent: boolean;
}

export class Sources {
  readonly #options: SourcesOptions;
  readonly #shared = new Map<number, Shared>();
  /** Sources that the thread is about to let go of. */
  readonly #dropping = new Map<number, () => void>();
  #last = 0;
  #hasEnded = false;

  constructor(options: SourcesOptions) {
    this.#options = options;
    void options.ended.then(() => {
      this.#hasEnded = true;
      for (const dropped of this.#dropping.values()) dropped();
    });
  }

  /** Opens a guest's source, or shares one that is open; rejects with what the source says, or if it is another one. */
  async acquire(
    source: PagerSource,
    pageBytes: number,
    replays: boolean,
    content?: string,
  ): Promise<GuestSource> {
    const { expires, kills, deadlineMs } = checkFetchOptions(source);
    const wanted = source.replay ?? replays;
    const shared = this.#find(source, pageBytes, wanted);
    try {
      const remote = await shared.remote;
      const { order } = remote;
      if (content !== undefined && order.content !== content) {
        throw new MinorfaultError("ERR_SOURCE_CHANGED", `${order.name} was replaced: its content is another`);
      }
      const isReplaying = order.replaying !== undefined;
      const replay = isReplaying ? order.replaying : workingSetOf(order, wanted);
      this.#sendOnce(shared, remote);
      const { byteLength, unitBytes } = order;
      const whose = { source: shared.source, byteLength, unitBytes };
      return {
        order: { ...whose, deadlineMs, expires, kills, replay, isReplaying },
        release: () => this.#release(shared),
      };
    } catch (error) {
      await this.#release(shared);
      throw error;
    }
  }

  async warm(source: PagerSource): Promise<WarmSource> {
    checkFetchOptions(source);
    const shared = this.#find(source, PAGE_SIZE, false);
    try {
      const remote = await shared.remote;
      const { byteLength, workingSets, content } = remote.order;
      let closing: Promise<void> | undefined;
      return {
        byteLength,
        workingSets,
        content,
        keep: () => {
          const { replay = true } = source;
          const workingSet = workingSets.find((name) => replay === true || name === replay);
          if (workingSet === undefined || closing !== undefined) return;
          this.#sendOnce(shared, remote);
          this.#options.send({ kind: "keep", source: shared.source, workingSet });
        },
        close: () => {
          shared.isRetired = true;
          closing ??= this.#release(shared);
          return closing;
        },
      };
    } catch (error) {
      await this.#release(shared);
      throw error;
    }
  }

  /** Closes what is still open. */
  async close(): Promise<void> {
    await Promise.all(
      [...this.#shared.values()].map((shared) => {
        shared.users = 1;
        return this.#release(shared);
      }),
    );
  }

  /** The thread has let go of a source. */
  dropped(source: number): void {
    this.#dropping.get(source)?.();
    this.#dropping.delete(source);
  }

  #sendOnce(shared: Shared, { order, transfer }: Remote): void {
    if (!shared.isSent) this.#options.send({ kind: "source", source: shared.source, order }, transfer);
    shared.isSent = true;
  }

  #find(source: PagerSource, pageBytes: number, replay: boolean | string): Shared {
    const { deadlineMs: _, atDeadline: __, replay: ___, ...rest } = source;
    const what = { ...rest, pageBytes };
    for (const known of this.#shared.values()) {
      if (known.isRetired || !isDeepStrictEqual(known.what, what)) continue;
      known.users++;
      return known;
    }
    const { isSole } = this.#options;
    const stagingBytes = isSole ? 0 : SHARED_STAGING_BYTES;
    const remote = openRemote(source, {
      unitBytesMin: pageBytes,
      replay: isSole && replay,
      stagingBytes,
      keptBytes: isSole ? 0 : KEPT_BYTES_MAX,
    });
    // Whoever waits for it hears of it.
    remote.catch(() => undefined);
    const number = ++this.#last;
    const shared: Shared = { source: number, what, remote, users: 1, isRetired: false, isSent: false };
    this.#shared.set(number, shared);
    return shared;
  }

  async #release(shared: Shared): Promise<void> {
    shared.users--;
    if (shared.users !== 0) return;
    const { source, isSent } = shared;
    // From here on nobody finds it: who comes now opens it anew.
    this.#shared.delete(source);
    const remote = await shared.remote.catch(() => undefined);
    if (remote === undefined) return;
    if (isSent && !this.#hasEnded) {
      await new Promise<void>((resolve) => {
        this.#dropping.set(source, resolve);
        this.#options.send({ kind: "drop", source });
      });
    }
    await remote.close(isSent);
  }
}

/** The working set that a guest gets. */
function workingSetOf({ workingSets, name }: OpenedSource, wanted: boolean | string): string | undefined {
  if (typeof wanted === "boolean") return wanted ? workingSets[0] : undefined;
  if (workingSets.includes(wanted)) return wanted;
  throw new MinorfaultError("ERR_SOURCE_MISSING", `${name} has no working set ${wanted}`);
}
