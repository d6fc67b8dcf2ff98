// Labelled steps at which a process of the server can be made to die, once: `npm run chaos -- kill` names a file in
// MINORFAULT_DIE_AT, nobody else does, and then a step costs one comparison. The first process that comes to the step that
// stands in the file removes it and is gone.

import { readFileSync, unlinkSync } from "node:fs";

const path = process.env.MINORFAULT_DIE_AT;

/** Where in the life of a hand-over, a takeover or a keeper's start a process may die. */
export const STEPS = {
  /** The keeper has accepted a connection; it has told one process of it. */
  accept: ["accepted", "told"],
  /** The pager has looked at a hand-over, booked it with the keeper, with the spare, served it, cleared it, answered it. */
  handOver: ["peeked", "kept", "booked", "started", "consumed", "answered"],
  /** The spare has the baton, has told the keeper, has one guest more. */
  takeover: ["baton", "serving", "adopted"],
  /** The pager has told the spare of a new keeper, has started it, has told it everything; that one is born. */
  keeper: ["keeper-link", "keeper-spawned", "keeper-told", "keeper-born"],
  /** The keeper has started a spare, and has told it everything. */
  spare: ["spare-born", "synced"],
} as const;

export type Step = (typeof STEPS)[keyof typeof STEPS][number];

export function step(name: Step): void {
  if (path === undefined) return;
  try {
    if (readFileSync(path, "utf8") !== name) return;
    unlinkSync(path);
  } catch {
    // Nobody is to die, or somebody else was faster.
    return;
  }
  process.kill(process.pid, "SIGKILL");
}
