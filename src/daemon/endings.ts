// The end of a guest that can't be served any more. Without a pager its missing pages would read as zeros, or it would wait
// for ever: it is killed, by the descriptor of its process, and the reason is written down where it outlives us.

import { appendFileSync } from "node:fs";
import { join } from "node:path";
import { ERRNO, errnoName } from "../abi/errno.ts";
import { SIGNAL } from "../abi/memory.ts";
import { signalByPidfd } from "../linux/index.ts";
import { report } from "./front-pipe.ts";
import type { Entry } from "./link.ts";

/** One JSON object a line: which guest was ended, when, and why. */
export const ENDINGS_FILE = "endings.jsonl";

/** Of a guest's entry, the last descriptor is its process. Answers what became of it. */
export function endGuest(
  folder: string,
  { id, text, descriptors }: Entry,
  reason: string,
): "killed" | "gone" | "not-ours" {
  const errno = signalByPidfd(descriptors.at(-1) ?? -1, SIGNAL.SIGKILL);
  const outcome = errno === 0 ? "killed" : errno === ERRNO.ESRCH ? "gone" : "not-ours";
  const line = {
    at: new Date().toISOString(),
    id,
    outcome,
    reason,
    ...(errno === 0 ? {} : { errno: errnoName(errno) }),
    guest: text,
  };
  try {
    appendFileSync(join(folder, ENDINGS_FILE), `${JSON.stringify(line)}\n`, { mode: 0o600 });
  } catch {
    // The folder may be gone; whoever started the server hears of it all the same.
  }
  report({ event: "ended", id, image: "", reason: outcome, detail: reason });
  return outcome;
}
