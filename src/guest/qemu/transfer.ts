// What every move of a machine into QEMU has in common: a session, its connections one after the other, how far it is.

import type { Socket } from "node:net";
import { MinorfaultError } from "../../base/errors.ts";
import { type Image, openImage } from "../../image/index.ts";
import type { MissingChunk } from "./missing-chunks.ts";
import type { PageRange } from "./page-content.ts";
import { PagePool, type PoolImage } from "./page-pool.ts";
import { InlineReader, type PageReader } from "./page-reader.ts";
import { type RestorableMachine, sourceBlocks } from "./saved-machine.ts";
import type { SourceCounters, SourceState } from "./source-contract.ts";
import { piecePagesOf, SourceSession } from "./source-session.ts";

/** LIMIT: connections in a row that bring the machine no page further. */
const RECOVERIES_MAX = 5;
const PROGRESS_MS = 100;

export type Connect = (signal: AbortSignal) => Promise<Socket>;

export interface TransferOptions {
  readonly image: Image;
  /** Where threads open the image for themselves; left out, this thread reads everything. */
  readonly url?: string;
  /** Those threads, if they were started beforehand; they are left as they are. */
  readonly pool?: PagePool | undefined;
  /** Page sizes of the destination, by block, where they differ from those of the image. */
  readonly pageSizes?: ReadonlyMap<string, number>;
  /** A new connection to a QEMU that has lost one; left out, the first loss is the end. */
  readonly reconnect?: Connect;
  /** LIMIT: bytes a second of what nobody asked for; default none. */
  readonly pushBytesPerSecond?: number;
  /** LIMIT: how long a guest waits for a page that cannot be had until the connection is given up; default 30 s. */
  readonly patienceMs?: number | undefined;
  /** A chunk of the image cannot be had, or has come after all. */
  readonly onMissing?: ((chunk: MissingChunk) => void) | undefined;
  readonly signal?: AbortSignal;
  readonly onState?: (state: SourceState) => void;
  readonly onProgress?: (progress: SourceCounters) => void;
}

export interface TransferReport {
  readonly counters: SourceCounters;
  /** Milliseconds until everything had been sent and QEMU stood on its own. */
  readonly completedMs: number;
}

export interface SessionEvents {
  readonly onTouched?: (range: PageRange) => void;
  readonly onState?: (state: SourceState) => void;
  readonly isResumed?: boolean;
}

export function openSession(
  options: TransferOptions,
  { machine, configuration, devices }: RestorableMachine,
  { onTouched, onState, isResumed }: SessionEvents,
): SourceSession {
  const { image, url, pushBytesPerSecond, pool, patienceMs, onMissing } = options;
  const blocks = sourceBlocks(image, machine, options.pageSizes);
  const pagesMax = piecePagesOf(image, blocks);
  return new SourceSession({
    image,
    blocks,
    devices,
    sectionId: machine.sectionId,
    ...(configuration !== undefined && { configuration }),
    ...(isResumed && { isResumed }),
    ...(pushBytesPerSecond !== undefined && { pushBytesPerSecond }),
    ...(url !== undefined && {
      openPool: () => readerOf({ url, digest: image.digest }, pagesMax, pool),
      openAgain: (signal) => openAgain({ url, digest: image.digest }, signal),
    }),
    patienceMs,
    onMissing,
    ...(onTouched !== undefined && { onTouched }),
    onState: (state) => {
      onState?.(state);
      options.onState?.(state);
    },
  });
}

/** Reads an image as it is now: whoever mended it has put other files in place of those that were open. */
async function openAgain({ url, digest }: PoolImage, signal: AbortSignal): Promise<PageReader> {
  const image = await openImage(url, { digest, signal });
  const reader = new InlineReader(image);
  return { read: (range, until) => reader.read(range, until), close: () => image.close() };
}

/** Reads with the threads that are there, or with some that end with it; nothing is done before something is to be read. */
function readerOf(image: PoolImage, pagesMax: number, pool: PagePool | undefined): PageReader {
  let own: PagePool | undefined;
  let reader: PageReader | undefined;
  const open = (): PageReader => {
    if (pool === undefined) own = new PagePool();
    return (own ?? pool)!.open(image, pagesMax);
  };
  return {
    async read(range, signal, blockFirst) {
      reader ??= open();
      return reader.read(range, signal, blockFirst);
    },
    async close() {
      await reader?.close();
      await own?.close();
    },
  };
}

/**
 * Serves QEMU over one connection after the other until it has everything. `lead` runs meanwhile: its signal comes
 * when the transfer is over, one way or the other.
 */
export async function transfer(
  options: TransferOptions,
  session: SourceSession,
  first: Socket,
  lead: (over: AbortSignal) => Promise<void>,
): Promise<TransferReport> {
  const startedAt = performance.now();
  const over = new AbortController();
  const abort = (): void => session.disconnect(options.signal?.reason);
  options.signal?.addEventListener("abort", abort);
  const progress = setInterval(() => options.onProgress?.(session.machine.counters), PROGRESS_MS);
  let leading: Promise<void> | undefined;
  try {
    const serving = serveAll(options, session, first);
    leading = lead(over.signal);
    // What goes wrong in there ends the connection; the ending is what counts.
    leading.catch((error: unknown) => session.disconnect(error));
    await serving;
    over.abort();
    await leading;
    options.onProgress?.(session.machine.counters);
    return { counters: session.machine.counters, completedMs: performance.now() - startedAt };
  } finally {
    over.abort();
    clearInterval(progress);
    options.signal?.removeEventListener("abort", abort);
    await session.close();
    await leading?.catch(() => {});
  }
}

async function serveAll(options: TransferOptions, session: SourceSession, first: Socket): Promise<void> {
  let socket = first;
  let fruitless = 0;
  for (;;) {
    const before = session.confirmedPages;
    const { state, error, isGivenUp } = await session.serve(socket);
    if (state === "completed") return;
    options.signal?.throwIfAborted();
    if (state !== "paused") throw error ?? lost(state);
    // Of what it was sent last QEMU may have got nothing: what counts is what it has.
    fruitless = session.confirmedPages > before ? 0 : fruitless + 1;
    if (options.reconnect === undefined || isGivenUp || fruitless > RECOVERIES_MAX) throw paused(error);
    const signal = options.signal ?? new AbortController().signal;
    socket = await options.reconnect(signal).catch((failure: unknown) => {
      throw error === undefined || signal.aborted ? failure : unrecovered(error, failure);
    });
  }
}

function paused(cause: unknown): unknown {
  const reason = cause instanceof Error ? cause.message : "the connection was cut";
  const isImage = cause instanceof MinorfaultError && cause.kind === "source";
  return new MinorfaultError("ERR_QEMU", `The machine waits for the rest of its memory: ${reason}`, {
    cause,
    hint:
      "Nothing is lost: `minorfault qemu resume IMAGE --qmp SOCKET` goes on where this ended" +
      (isImage ? ` once the image is whole. ${cause.hint}` : ""),
  });
}

/** What broke the connection comes first: it is why there is no other one. */
function unrecovered(error: unknown, failure: unknown): MinorfaultError {
  const [first, then] = [error, failure].map((each) => (each instanceof Error ? each.message : String(each)));
  return new MinorfaultError("ERR_QEMU", `${first}; the connection was not made again: ${then}`, {
    cause: error,
  });
}

function lost(state: SourceState): MinorfaultError {
  return new MinorfaultError("ERR_QEMU", `QEMU closed the connection while the machine was ${state}`);
}
