// What the thread that opened a memory, the keeper's thread, and the process of the pager say to each other.
//
//   opener ── KeeperOrder ──▶ keeper (a worker) ── PagerOrder ──▶ pager's process
//          ◀── KeeperNote ──        │            ◀── PagerNote ──
//                                   └─ holds the userfaultfd when that process dies

import type { ErrorCode } from "../../../base/errors.ts";
import type {
  PagerImage,
  PagerOptions,
  PagerSource,
  PagerStatistics,
  WriteMode,
} from "../../../pager/index.ts";

/** Everything that the pager's process is told at its start. Its userfaultfd is descriptor 4. */
export interface PagerStart {
  readonly address: number;
  readonly byteLength: number;
  readonly image?: PagerImage;
  readonly source?: PagerSource;
  readonly writes: WriteMode;
  readonly plan?: PagerOptions["plan"];
  readonly placement?: PagerOptions["placement"];
  /** The thread whose faults come first. */
  readonly pid: number;
}

export type PagerOrder =
  | { readonly kind: "start"; readonly start: PagerStart }
  | { readonly kind: "install"; readonly id: number; readonly start: number; readonly until: number }
  | { readonly kind: "close" };

/** An error on its way between processes. */
export interface PlainError {
  readonly code: ErrorCode;
  readonly message: string;
  readonly hint: string;
  readonly cause?: PlainError;
}

export type PagerNote =
  | { readonly kind: "ready" }
  | { readonly kind: "error"; readonly error: PlainError }
  | { readonly kind: "installed"; readonly id: number; readonly error?: PlainError }
  | { readonly kind: "statistics"; readonly statistics: PagerStatistics };

/** For the keeper: the pager's start, and the userfaultfd, a descriptor of this process. */
export interface KeeperStart {
  readonly start: PagerStart;
  readonly uffd: number;
}

export type KeeperOrder = Exclude<PagerOrder, { readonly kind: "start" }>;

export type KeeperNote =
  | PagerNote
  /** The pager's process has died, and another one serves. */
  | { readonly kind: "restarted"; readonly signal: string | null; readonly code: number | null }
  /** It has died too often: what is missing is poisoned. Or it was closed. */
  | { readonly kind: "ended"; readonly error?: PlainError };

/** The descriptor of the userfaultfd in the pager's process: behind the three standard ones and the channel. */
export const UFFD_IN_CHILD = 4;
