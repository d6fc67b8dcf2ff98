// What the two threads of a pager with a source are told at their start, and the words of memory that they share.
//
//   serving thread                                fetching thread
//   posts a request, adds 1 to RUNG, notifies ─▶  woken by the message, or from Atomics.wait where its source never waits
//   sees DONE ≠ seen, receives              ◀──  posts an end, adds 1 to DONE; writes to the pipe if SLEEPING
//
// The serving thread sleeps in poll(2), on its userfaultfds and the reading end of the pipe.

import type { MessagePort } from "node:worker_threads";
import type { ErrorNote } from "../notes.ts";
import type { FetchEnd, FetchRequest, ReplayBegin, ReplayEnd, ReplayPiece } from "./link.ts";
import type { SourceDescriptor } from "./options.ts";

/** Index of each 32-bit word. */
export const WIRE = {
  /** Requests posted. */
  RUNG: 0,
  /** Ends posted. */
  DONE: 1,
  /** The serving thread is about to sleep, or does. */
  SLEEPING: 2,
  /** The fetching thread is to end. */
  STOP: 3,
  /** The fetching thread has failed and answers no more. */
  DEAD: 4,
  /** Microseconds that reads of the serving thread have waited for a disk. */
  DISK_WAIT: 5,
  /** The serving thread takes frames of a replay that are not proven yet; and how many of them it is done with (proving.ts). */
  PROVES: 6,
  PROVEN: 7,
} as const;

export const WIRE_WORDS = 8;

/** For the fetching thread. */
export interface FetchWorkOrder {
  readonly source: SourceDescriptor;
  readonly unitBytesMin: number;
  /** The working set to replay: true for the image's first, if it has one. */
  readonly replay: boolean | string;
  readonly slots: number;
  /** LIMIT: reads at once. */
  readonly fetchesMax: number;
  readonly words: Int32Array;
  readonly port: MessagePort;
  /** Whether more may be read than is asked for. */
  readonly sweeps: boolean;
  /** LIMIT: slots of the replay for what is kept for the next guest, beside those that everything goes through. */
  readonly keptSlots: number;
  /** The pipe's writing end. */
  readonly bellFd: number;
}

/** What the fetching thread tells its starter. */
export type OpenedMessage =
  | { readonly kind: "opened"; readonly opened: OpenedSource }
  | { readonly kind: "failed"; readonly error: ErrorNote };

export interface OpenedSource {
  /** For errors. */
  readonly name: string;
  readonly byteLength: number;
  readonly unitBytes: number;
  /** Names this very content, if that is known. */
  readonly identity: string | undefined;
  /** Names its bytes, if that is known. */
  readonly content: string | undefined;
  /** Pieces of memory for one unit each, and how many units may be on their way at once. */
  readonly slots: number;
  readonly fetchesMax: number;
  /** Units that are read as one. */
  readonly runMax: number;
  /** Of the thread that fetches. */
  readonly tid: number;
  /** Address of slot 0. */
  readonly staging: number;
  /** The same of the replay, and for how many of its slots something may be kept. */
  readonly replayStaging: number;
  readonly keptSlots: number;
  readonly stagingBytes: number;
  /** Where the panes are, and their words (panes.ts). */
  readonly paneStaging: number;
  readonly panes: Int32Array;
  /** The words of what is read ahead (ahead.ts), whose memory is behind that of the panes. */
  readonly ahead: Int32Array;
  readonly holes: Uint32Array;
  readonly workingSets: readonly string[];
  /** The one that is being replayed. */
  readonly replaying: string | undefined;
}

/** For the serving thread. */
export interface FetchOrder extends OpenedSource {
  readonly source: SourceDescriptor;
  readonly port: MessagePort;
  readonly words: Int32Array;
  /** The pipe's reading end, the serving thread's to close. */
  readonly bellFd: number;
  readonly deadlineMs: number;
  readonly expires: boolean;
  readonly backgroundRate: number;
}

/** What holds for a source, as its owner has asked for it. */
export type FetchSettings = Pick<FetchOrder, "deadlineMs" | "fetchesMax" | "backgroundRate" | "expires"> & {
  readonly kills: boolean;
};

/** In one place, since code that was compiled for one order holds only for those that were made in the same way. */
export function makeFetchOrder(
  settings: FetchSettings,
  opened: OpenedSource,
  { source, port, words, bellFd }: Pick<FetchOrder, "source" | "port" | "words" | "bellFd">,
): FetchOrder {
  return { ...settings, ...opened, source, port, words, bellFd };
}

export type WireRequest = FetchRequest;

export type WireEnd = Omit<FetchEnd, "error"> & { readonly error?: ErrorNote };

export type WireNews =
  | WireEnd
  /** Of units that were read as one, and ended in more than one way: a message costs more than an end. */
  | { readonly kind: "ends"; readonly ends: readonly WireEnd[] }
  | ReplayBegin
  | ReplayPiece
  | (Omit<ReplayEnd, "error"> & { readonly error?: ErrorNote });
