// What the thread that serves and the thread that fetches say to one another.

import type { MinorfaultError } from "../../base/errors.ts";
import type { FetchResult, Rank } from "./machine.ts";

export type FetchRequest =
  | {
      readonly kind: "fetch";
      readonly ticket: number;
      readonly unit: number;
      readonly slot: number;
      readonly rank: Rank;
    }
  | { readonly kind: "cancel"; readonly ticket: number };

/** The end of one fetch. From now on its slot is not written to. */
export interface FetchEnd {
  readonly ticket: number;
  readonly result: FetchResult;
  /** Of a fetch that failed. */
  readonly error?: MinorfaultError;
}

/** The serving side's end of the line. Never waits. */
export interface FetchLink {
  send(request: FetchRequest): void;
  receive(): FetchEnd | undefined;
}
