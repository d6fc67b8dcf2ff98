// What the thread that opened a memory, the keeper's thread, and the process of the pager say to each other.
//
//   opener ── KeeperOrder ──▶ keeper (a worker) ── PagerOrder ──▶ pager's process
//          ◀── KeeperNote ──        │            ◀── PagerNote ──
//                                   └─ holds the userfaultfd when that process dies

import type { MessagePort } from "node:worker_threads";
import type { ErrorCode } from "../../../base/errors.ts";
import type {
  PagerOptions,
  PagerSource,
  PagerStatistics,
  RepairReport,
  ReplayReport,
  Trace,
  WriteMode,
} from "../../../pager/index.ts";

/** Everything that the pager's process is told at its start. Its userfaultfd is UFFD_IN_CHILD. */
export interface PagerStart {
  readonly address: number;
  readonly byteLength: number;
  /** Of the file that is FILE_IN_CHILD. */
  readonly fileBytes?: number;
  readonly source?: PagerSource;
  readonly writes: WriteMode;
  readonly plan?: PagerOptions["plan"];
  readonly placement?: PagerOptions["placement"];
  readonly trace?: boolean;
  /** The thread whose faults come first. */
  readonly pid: number;
}

export type PagerOrder =
  | { readonly kind: "start"; readonly start: PagerStart }
  | { readonly kind: "install"; readonly id: number; readonly start: number; readonly until: number }
  | { readonly kind: "repair"; readonly id: number; readonly start: number; readonly until: number }
  /** All touches that have not been told. */
  | { readonly kind: "trace"; readonly id: number }
  | { readonly kind: "close" };

/** An error on its way between processes. */
export interface PlainError {
  readonly code: ErrorCode;
  readonly message: string;
  readonly hint: string;
  readonly cause?: PlainError;
}

export type ReplayNote = Omit<ReplayReport, "error"> & { readonly error?: PlainError };

export type PagerNote =
  | { readonly kind: "ready" }
  | { readonly kind: "error"; readonly error: PlainError }
  | { readonly kind: "installed"; readonly id: number; readonly error?: PlainError }
  | {
      readonly kind: "repaired";
      readonly id: number;
      readonly report?: RepairReport;
      readonly error?: PlainError;
    }
  /** Without a report there was nothing to replay. */
  | { readonly kind: "replayed"; readonly report?: ReplayNote }
  /** Touches since the last note of them. With an id: an answer, complete. */
  | { readonly kind: "touches"; readonly id?: number; readonly trace: Trace }
  | { readonly kind: "statistics"; readonly statistics: PagerStatistics };

/** For the keeper: the pager's start, and descriptors of this process. */
export interface KeeperStart {
  readonly start: PagerStart;
  readonly uffd: number;
  /** The file that is the content, opened once: every process of the pager serves the same one. -1: no file. */
  readonly file: number;
  /** Whether another process would find the same content: not where only a name is known. */
  readonly isPinned: boolean;
}

export type KeeperOrder = Exclude<PagerOrder, { readonly kind: "start" }>;

/** An owner that waits for its trace without its event loop: woken by a change of `isThere`, it finds it at its port. */
export interface TraceRequest {
  readonly kind: "await-trace";
  readonly port: MessagePort;
  readonly isThere: Int32Array;
}

export type KeeperNote =
  | Exclude<PagerNote, { readonly kind: "touches" }>
  /** The pager's process has died, and another one serves. */
  | { readonly kind: "restarted"; readonly signal: string | null; readonly code: number | null }
  /** It has died too often: what is missing is poisoned. Or it was closed. */
  | { readonly kind: "ended"; readonly error?: PlainError };

/** Descriptors in the pager's process: behind the three standard ones and the channel. */
export const UFFD_IN_CHILD = 4;
export const FILE_IN_CHILD = 5;
