// What the page and `minorfault top` draw: the server and all its guests at one moment, small enough to be sent twice a
// second for many of them. Plain data and pure functions: browsers load this file too.

import type { History } from "./history-schema.ts";
import type { Health } from "./schemas.ts";

/** Characters of a strip: each stands for a part of the guest's memory and says how much of it is resident. */
export const STRIP_CELLS = 32;
const STEPS = "0123456789";

export interface FrameGuest {
  readonly id: string;
  readonly name?: string;
  readonly image: string;
  readonly state: string;
  readonly pid: number;
  readonly ageMs: number;
  readonly byteLength: number;
  readonly residentBytes: number;
  readonly faults: number;
  readonly poisoned: number;
  readonly bytesInstalled: number;
  readonly waiting: number;
  /** Microseconds, since the pager has it. */
  readonly p50Us: number;
  readonly p99Us: number;
  readonly strip: string;
  readonly pagers: number;
}

export interface FrameEnded {
  readonly id: string;
  readonly name?: string;
  readonly image: string;
  readonly reason: string;
}

export interface Frame {
  /** Milliseconds since the epoch. */
  readonly at: number;
  readonly health: Health;
  readonly guests: readonly FrameGuest[];
  /** The last ones first. */
  readonly ended: readonly FrameEnded[];
  /** Of the guest that was asked for. */
  readonly history?: History;
}

/** Shares from 0 to 1 as digits; 0 is only nothing, 9 is only everything. */
export function stripOf(shares: readonly number[]): string {
  if (shares.length === 0) return STEPS[0]!.repeat(STRIP_CELLS);
  return Array.from({ length: STRIP_CELLS }, (_, cell) => {
    const first = Math.floor((cell * shares.length) / STRIP_CELLS);
    const until = Math.max(first + 1, Math.floor(((cell + 1) * shares.length) / STRIP_CELLS));
    const part = shares.slice(first, until);
    const mean = part.reduce((sum, share) => sum + share, 0) / part.length;
    if (mean <= 0) return STEPS[0];
    if (mean >= 1) return STEPS[9];
    return STEPS[1 + Math.floor(mean * 8)];
  }).join("");
}

/** The share that a digit of a strip stands for. */
export function shareOf(digit: string): number {
  const step = STEPS.indexOf(digit);
  if (step <= 0) return 0;
  return step === 9 ? 1 : (step - 0.5) / 8;
}
