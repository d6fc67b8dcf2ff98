// What the thread that serves and the thread that fetches say to one another.

import type { MinorfaultError } from "../../base/errors.ts";
import type { Unproven } from "../../image/content.ts";
import type { Action, FetchResult } from "./machine.ts";

export type FetchRequest =
  | Extract<Action, { readonly kind: "fetch" | "cancel" }>
  /** To be replayed after whatever is being replayed now: pieces, and an end. */
  | { readonly kind: "replay"; readonly workingSet: string }
  /** Everything will be asked for, in order. */
  | { readonly kind: "fill" }
  /** All is over: STOP says so, and this makes an event of it. */
  | { readonly kind: "end" }
  /** The piece of a replay in this slot stays there for guests to come, until it is told to be free. */
  | { readonly kind: "keep"; readonly slot: number }
  /** The piece of a replay in this slot has been installed, or is kept no more. */
  | { readonly kind: "free"; readonly slot: number };

/** The end of the fetch of so many units, from that ticket on. From now on their slots are not written to. */
export interface FetchEnd {
  readonly kind: "end";
  readonly ticket: number;
  readonly count: number;
  readonly result: FetchResult;
  /** Of those that failed. */
  readonly error?: MinorfaultError;
}

/** Some runs of a working set, their bytes one after the other in a slot of the replay. */
export interface ReplayPiece {
  readonly kind: "piece";
  readonly slot: number;
  /** As in a DecodedList; zeros are not in the slot. */
  readonly runs: Uint32Array;
  /** What its bytes have to be shown to be, before they are used; undefined: they have been. */
  unproven: Unproven | undefined;
}

/** A replay begins: its pieces will take so many slots at most. */
export interface ReplayBegin {
  readonly kind: "replaying";
  readonly workingSet: string;
  readonly slots: number;
}

export interface ReplayEnd {
  readonly kind: "replayed";
  readonly workingSet: string;
  readonly error?: MinorfaultError;
}

export type FetchNews = FetchEnd | ReplayBegin | ReplayPiece | ReplayEnd;

/** The serving side's end of the line. Never waits. */
export interface FetchLink {
  send(request: FetchRequest): void;
  /** Of what has come the next; of an end at most so many units, the others with the next call. */
  receive(unitsMax: number): FetchNews | undefined;
}

/**
 * LIMIT: slots of the replay, behind those of the units, for what is on its way: what is verified before the serving thread
 * is ready for it. What is kept has slots beside them.
 */
export const REPLAY_SLOTS = 64;
export const REPLAY_BYTES: number = 256 * 1024;
