// The end of a guest that can't be served any more. Without a pager its missing pages would read as zeros, or it would wait
// for ever: it is killed, by the descriptor of its process, and the reason is written down where it outlives us.

import { appendFileSync } from "node:fs";
import { join } from "node:path";
import { ERRNO, errnoName } from "../abi/errno.ts";
import { PAGE_SIZE, SIGNAL } from "../abi/memory.ts";
import type { Range } from "../base/range.ts";
import { local, signalByPidfd } from "../linux/index.ts";
import { Ioctls } from "../uffd/index.ts";
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
  record(folder, { id, outcome, reason, ...(errno === 0 ? {} : { errno: errnoName(errno) }), guest: text });
  report({ event: "ended", id, image: "", reason: outcome, detail: reason });
  return outcome;
}

/**
 * A guest that keeps its own userfaultfd, and says so, need not be killed: what is missing is poisoned, and whoever
 * touches it is told by SIGBUS.
 */
export function poisonGuest(
  folder: string,
  { id, text, descriptors }: Entry,
  regions: readonly Range[],
  reason: string,
): void {
  const ioctls = new Ioctls(local, descriptors[0] ?? -1);
  for (const { start, until } of regions) {
    // Page by page: one that is there answers EEXIST, and stays.
    for (let at = start; at < until; at += PAGE_SIZE) ioctls.poison(at, PAGE_SIZE, 0);
    ioctls.wake(start, until - start);
  }
  record(folder, { id, outcome: "poisoned", reason, guest: text });
}

function record(folder: string, what: object): void {
  const line = { at: new Date().toISOString(), ...what };
  try {
    appendFileSync(join(folder, ENDINGS_FILE), `${JSON.stringify(line)}\n`, { mode: 0o600 });
  } catch {
    // The folder may be gone; whoever started the server hears of it all the same.
  }
}
