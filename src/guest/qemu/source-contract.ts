// What the source of a post-copy migration is given, and what it tells whoever has socket and image to do.

import type { MinorfaultError } from "../../base/errors.ts";
import type { SourceBlock } from "./page-ledger.ts";
import type { Allocate } from "./page-records.ts";

export type SourceState =
  | "idle"
  | "prefetching"
  | "starting"
  | "running"
  | "finishing"
  | "paused"
  | "recovering"
  | "completed"
  | "failed";

export type SourceAction =
  | { readonly kind: "send"; readonly bytes: Uint8Array }
  /** Pages to be read and given to `pages` or `zeros`. A guest waits for those of a request, which come first. */
  | {
      readonly kind: "want";
      readonly first: number;
      readonly count: number;
      readonly urgency: "request" | "push";
    }
  /** The guest has asked for these pages: in this order they are its working set. */
  | { readonly kind: "touched"; readonly first: number; readonly count: number }
  | { readonly kind: "state"; readonly state: SourceState }
  /** The connection is to be closed: the other side is not what it should be, or a page cannot be had. */
  | { readonly kind: "close"; readonly error: MinorfaultError };

export interface SourceMachineOptions {
  /** Section CONFIGURATION as it was saved; a machine without one has none. */
  readonly configuration?: Uint8Array;
  /** The state of all devices as it was saved. */
  readonly devices: Uint8Array;
  /** The id that section ram had when it was saved: no device has it. */
  readonly sectionId: number;
  /** In the order in which they were saved. */
  readonly blocks: readonly SourceBlock[];
  /** The machine has been started by another process: connecting recovers it. */
  readonly isResumed?: boolean;
  /** Whether everything is pushed that is not asked for; default true. */
  readonly push?: boolean;
  /** LIMIT: pages that are on their way to be pushed; default 256, a quarter of it while a guest waits. */
  readonly pushPagesMax?: number;
  /** Pages of one `want` end at a multiple of so many; default 16, a chunk. */
  readonly pushUnit?: number;
  /** LIMIT: bytes that were given to be sent and have not been, beyond which nothing is pushed; default 1 MiB. */
  readonly unsentBytesMax?: number;
  /** LIMIT: of what is pushed; default none. */
  readonly pushBytesPerSecond?: number;
  /** LIMIT: how long the destination may take for one step of the handshake; default 30 s. */
  readonly stepMs?: number;
  /** Milliseconds that only grow; default performance.now. */
  readonly now?: () => number;
  /** Buffers for what is sent; default new ones. */
  readonly allocate?: Allocate;
}

export interface SourceCounters {
  readonly requests: number;
  /** Requests for pages that had been sent already: they crossed. */
  readonly crossed: number;
  readonly pagesSent: number;
  readonly zerosSent: number;
  /** Those that the destination has, or will have if the connection lasts. */
  readonly pagesThere: number;
  readonly pagesTotal: number;
  readonly recoveries: number;
}
