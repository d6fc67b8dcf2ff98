// How the owner's thread and the serving thread speak with each other while the latter never comes back to its event loop:
// orders over a port that it looks into, a few words of shared memory, an interrupt so that it does look, and ordinary
// messages on the way back.
//
//   owner                                       serving thread
//   posts an order, adds 1 to REQUEST ───────▶  finds SEEN ≠ REQUEST after each wait, takes all orders, sets SEEN
//   interrupts it every millisecond             (an interrupt that comes just before a wait is lost)
//   until SEEN = REQUEST
//
// One serving thread has any number of guests; each order and each message names the guest that it is about.

import type { MessagePort } from "node:worker_threads";
import type { Range } from "../base/range.ts";
import type { FetchOrder } from "./fetch/order.ts";
import type { ErrorNote } from "./notes.ts";
import type {
  PagerEnd,
  PagerRegion,
  PlacementMode,
  PlacementReport,
  RepairReport,
  ReplayReport,
  WriteMode,
} from "./options.ts";
import type { TraceMemory } from "./trace.ts";
import type { FlushStep, WriteBits } from "./writes.ts";

/** Index of each 32-bit word. */
export const CONTROL = {
  REQUEST: 0,
  SEEN: 1,
  /** 1: serve what is there, wake everybody, and end. */
  STOP: 2,
  /** Thread id, once it runs. */
  TID: 3,
} as const;

export const CONTROL_WORDS = 8;

export interface RegionOrder {
  readonly start: number;
  readonly pageSize: number;
  readonly pageCount: number;
  readonly imageOffset: number;
  /** Shared: the owner looks at it. */
  readonly resident: Uint32Array;
  /** Undefined: in the state's memory. */
  readonly zero: Uint32Array | undefined;
  readonly hasZeros: boolean;
  /** Where writes are tracked. */
  readonly writes: WriteBits | undefined;
}

/** What a serving thread is told at its start. */
export interface ThreadOrder {
  readonly control: Int32Array;
  readonly orders: MessagePort;
  /** What is known already: a hand setting, or the self-test of an earlier thread. */
  readonly placement: PlacementReport | undefined;
  /** For the self-test: shared words of the thread that touches pages, where one has been started. */
  readonly toucher: Int32Array | undefined;
  /** The owner is not the main thread. */
  readonly isNested: boolean;
  /** It serves one guest, may wait for nothing but its userfaultfd, and ends with it. */
  readonly isSole: boolean;
}

/** Where a guest's bytes are. */
export type ImageOrder =
  | { readonly descriptor: number; readonly byteLength: number }
  | { readonly address: number; readonly byteLength: number }
  | SourceOrder;

/** Bytes that are fetched, from a source that the thread has been told of. */
export interface SourceOrder {
  readonly source: number;
  readonly byteLength: number;
  readonly unitBytes: number;
  readonly deadlineMs: number;
  readonly expires: boolean;
  /** The guest is killed when a fault of it has waited too long. */
  readonly kills: boolean;
  /** The working set to replay; `isReplaying`: the thread that fetches has begun with it. */
  readonly replay: string | undefined;
  readonly isReplaying: boolean;
}

/** Everything that the serving thread is told of a guest. */
export interface GuestOrder {
  readonly guest: number;
  /** A duplicate made for the thread, which closes it. */
  readonly fd: number;
  readonly regions: readonly RegionOrder[];
  readonly windowPages: number;
  readonly isAdaptive: boolean;
  readonly image: ImageOrder;
  readonly counters: Float64Array;
  /** The process to kill where that was asked for; 0: none. */
  readonly guestPid: number;
  /** The thread to follow, 0: none known. */
  readonly tid: number;
  /** See `PagerOptions.isOwnMemory`. */
  readonly isOwnMemory: boolean;
  /** 0: no budget. */
  readonly budgetBytes: number;
  readonly writes: WriteMode;
  /** A duplicate made for the thread, -1: none. */
  readonly swapFd: number;
  readonly swapBytes: number;
  /** Where first touches are recorded. */
  readonly trace: TraceMemory | undefined;
  /** A duplicate made for the thread, which closes it; -1: none. */
  readonly stateFd: number;
  /** What the state is of. */
  readonly shapes: readonly PagerRegion[];
  readonly adopts: boolean;
  /** Errors are written to standard error as well. */
  readonly says: boolean;
}

/** To a guest that is being served. */
export type SeatOrder =
  /** Let go of it. */
  | { readonly kind: "close"; readonly guest: number }
  /** Install everything; `id` 0: stop that. */
  | {
      readonly kind: "bulk";
      readonly guest: number;
      readonly id: number;
      readonly pieceBytes: number;
      readonly range: Range | undefined;
    }
  | { readonly kind: "flush"; readonly guest: number; readonly id: number; readonly step: FlushStep }
  | { readonly kind: "repair"; readonly guest: number; readonly id: number; readonly range: Range };

export type ServeOrder =
  | SeatOrder
  | { readonly kind: "guest"; readonly order: GuestOrder }
  | { readonly kind: "source"; readonly source: number; readonly order: FetchOrder }
  /** Its working set is to be read and kept for guests that are yet to come. */
  | { readonly kind: "keep"; readonly source: number; readonly workingSet: string }
  /** Nobody uses it any more: "dropped" is the answer. */
  | { readonly kind: "drop"; readonly source: number }
  /** STOP has been set. */
  | { readonly kind: "stop" };

/** What the serving thread says of a guest. */
export type GuestMessage =
  | { readonly kind: "ready"; readonly guest: number }
  | { readonly kind: "error"; readonly guest: number; readonly error: ErrorNote }
  | { readonly kind: "installed"; readonly guest: number; readonly id: number }
  | { readonly kind: "flushed"; readonly guest: number; readonly id: number }
  | { readonly kind: "repaired"; readonly guest: number; readonly id: number; readonly report: RepairReport }
  | { readonly kind: "replayed"; readonly guest: number; readonly report: ReplayNote }
  | { readonly kind: "ended"; readonly guest: number; readonly end: EndNote };

export type ServeMessage =
  | GuestMessage
  /** The thread serves. */
  | { readonly kind: "placed"; readonly placement: PlacementReport }
  | { readonly kind: "dropped"; readonly source: number }
  /** The thread can't go on. */
  | { readonly kind: "failed"; readonly error: ErrorNote };

export type ReplayNote = Omit<ReplayReport, "error"> & { readonly error?: ErrorNote };

export type EndNote =
  | Exclude<PagerEnd, { readonly reason: "failed" }>
  | { readonly reason: "failed"; readonly error: ErrorNote };

export type MedianUs = Readonly<Partial<Record<PlacementMode, number>>>;
