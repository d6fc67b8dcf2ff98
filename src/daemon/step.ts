// Labelled steps at which a process of the server can be made to die: `npm run chaos -- kill` sets the variable, nobody
// else does. A step costs one comparison.
//
//   MINORFAULT_DIE_AT=booked:3    SIGKILL when the step "booked" is reached the third time in this process

const [label, count = "1"] = (process.env.MINORFAULT_DIE_AT ?? "").split(":");
let left = Number(count);

/** Where in the life of a hand-over, a takeover or a keeper's start a process may die. */
export const STEPS = [
  "accepted",
  "told",
  "peeked",
  "kept",
  "booked",
  "started",
  "consumed",
  "answered",
  "baton",
  "adopted",
  "serving",
  "keeper-link",
  "keeper-born",
  "synced",
  "spare-born",
] as const;

export type Step = (typeof STEPS)[number];

export function step(name: Step): void {
  if (name === label && --left === 0) process.kill(process.pid, "SIGKILL");
}
