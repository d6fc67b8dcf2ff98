// What the server's processes say to whoever started it: one JSON object a line, through a pipe that all of them have. When
// the last of them is gone, it ends; when nobody reads it, nobody minds.

import { writeSync } from "node:fs";
import { FRONT_PIPE } from "./birth.ts";

export type FrontEvent =
  | {
      readonly event: "serving";
      readonly pid: number;
      readonly guests: number;
      readonly ms: number;
      readonly why: string;
    }
  | { readonly event: "spare"; readonly pid: number }
  | {
      readonly event: "guest";
      readonly id: string;
      readonly image: string;
      readonly pid: number;
      readonly ms: number;
    }
  | {
      readonly event: "refused";
      readonly image: string;
      readonly pid: number;
      readonly code: string;
      readonly message: string;
    }
  /** So many others, when there are too many to tell of each. */
  | { readonly event: "refusals"; readonly count: number }
  | {
      readonly event: "ended";
      readonly id: string;
      readonly image: string;
      readonly reason: string;
      readonly detail?: string;
    }
  | { readonly event: "error"; readonly message: string; readonly code: string }
  | { readonly event: "keeper"; readonly pid: number }
  | { readonly event: "stopped"; readonly code: number; readonly why: string };

export function report(event: FrontEvent): void {
  try {
    writeSync(FRONT_PIPE, `${JSON.stringify({ at: new Date().toISOString(), ...event })}\n`);
  } catch {
    // Nobody reads, or not fast enough.
  }
}
