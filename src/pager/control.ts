// How the owner's thread and the pager's thread speak with each other while the latter never comes back to its event loop:
// a few words of shared memory, an interrupt so that they are looked at, and ordinary messages on the way back.
//
//   owner                                       pager's thread
//   writes what it wants, adds 1 to REQUEST ─▶  finds SEEN ≠ REQUEST after each wait, does it, sets SEEN
//   interrupts it every millisecond             (an interrupt that comes just before a wait is lost)
//   until SEEN = REQUEST

import type { FetchOrder } from "./fetch/order.ts";
import type { ErrorNote } from "./notes.ts";
import type {
  PagerEnd,
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
  /** The number of the installAll that is wanted, 0 for none. */
  BULK: 3,
  /** Bytes a piece. */
  BULK_PIECE: 4,
  /** Thread id of the pager, once it runs. */
  TID: 5,
  /** The number of the flush step that is wanted, and which step it is (index of FLUSH_STEPS). */
  FLUSH: 8,
  FLUSH_STEP: 9,
  /** The addresses that a bulk is limited to, two words each, low one first; an end of 0: everything. */
  BULK_START: 10,
  BULK_UNTIL: 12,
  /** The number of the repair that is wanted, and its addresses. */
  REPAIR: 16,
  REPAIR_START: 18,
  REPAIR_UNTIL: 20,
} as const;

export const CONTROL_WORDS = 32;

export const FLUSH_STEPS = ["begin", "done", "failed"] as const satisfies readonly FlushStep[];

export interface RegionOrder {
  readonly start: number;
  readonly pageSize: number;
  readonly pageCount: number;
  readonly imageOffset: number;
  /** Shared: the owner looks at it. */
  readonly resident: Uint32Array;
  readonly zero: Uint32Array;
  readonly hasZeros: boolean;
  /** Where writes are tracked. */
  readonly writes: WriteBits | undefined;
}

/** Everything that the pager's thread is told at its start. */
export interface WorkOrder {
  /** A duplicate made for this pager; the thread closes it. */
  readonly fd: number;
  readonly regions: readonly RegionOrder[];
  readonly windowPages: number;
  readonly isAdaptive: boolean;
  readonly image:
    | { readonly descriptor: number; readonly byteLength: number }
    | { readonly address: number; readonly byteLength: number }
    | { readonly fetch: FetchOrder; readonly byteLength: number };
  readonly control: Int32Array;
  readonly counters: Float64Array;
  /** What is known already: a hand setting, or the self-test of an earlier pager. */
  readonly placement: PlacementReport | undefined;
  /** The process to kill where that was asked for; 0: none. */
  readonly guestPid: number;
  /** The thread to follow, 0: none known. */
  readonly tid: number;
  /** For the self-test: shared words of the thread that touches pages, where one has been started. */
  readonly toucher: Int32Array | undefined;
  /** The owner is not the main thread. */
  readonly isNested: boolean;
  /** 0: no budget. */
  readonly budgetBytes: number;
  readonly writes: WriteMode;
  /** A duplicate made for this pager, -1: none. */
  readonly swapFd: number;
  readonly swapBytes: number;
  /** Where first touches are recorded. */
  readonly trace: TraceMemory | undefined;
}

export type PagerMessage =
  | { readonly kind: "ready"; readonly placement: PlacementReport }
  | { readonly kind: "error"; readonly error: ErrorNote }
  | { readonly kind: "installed"; readonly id: number }
  | { readonly kind: "flushed"; readonly id: number }
  | { readonly kind: "repaired"; readonly id: number; readonly report: RepairReport }
  | { readonly kind: "replayed"; readonly report: ReplayNote }
  | { readonly kind: "ended"; readonly end: EndNote };

export type ReplayNote = Omit<ReplayReport, "error"> & { readonly error?: ErrorNote };

export type EndNote =
  | Exclude<PagerEnd, { readonly reason: "failed" }>
  | { readonly reason: "failed"; readonly error: ErrorNote };

export type MedianUs = Readonly<Partial<Record<PlacementMode, number>>>;
