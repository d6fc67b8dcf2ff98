// Steps about whole processes: forking, ending, signals.

import { SIGNAL } from "../../src/abi/memory.ts";
import { resultText } from "./host.ts";
import { refuseChange, refuseRelease } from "./rules.ts";
import { actorOf, type Resolved, type Scene, Skip } from "./scene.ts";
import type { Step } from "./steps.ts";

type Of<Kind extends Step["kind"]> = Extract<Step, { kind: Kind }>;

const ACTORS_MAX = 3;

export function fork(scene: Scene, step: Of<"fork" | "kill" | "signal">): Resolved {
  const { host } = scene;
  const actor = actorOf(scene, step);
  const refusal = refuseChange(host);
  if (refusal !== undefined) return new Skip(refusal);
  if (host.living.length >= ACTORS_MAX) return new Skip("there are enough processes");
  return { name: "fork", text: "fork", actor: actor.index, run: (host, actor) => host.fork(actor) };
}

export function kill(scene: Scene, step: Of<"fork" | "kill" | "signal">): Resolved {
  const actor = actorOf(scene, step);
  if (actor.index === 0) return new Skip("the first process stays");
  const refusal = refuseRelease(scene.host);
  if (refusal !== undefined) return new Skip(refusal);
  // The memory of who is dead lives on while another process reaches into it.
  const isReached = scene.host.living.some((each) =>
    [...each.pending.values()].some(({ remote }) => remote === actor.index),
  );
  if (isReached) return new Skip("another process waits in its memory");
  scene.order.wake(scene.host);
  return { name: "kill", text: "kill", actor: actor.index, run: (host, actor) => host.kill(actor) };
}

/**
 * SIGUSR1 for a thread that waits: in an access of its own, in a read, or for its event to be read. In a system call
 * that waits for a page the kernel can't deliver it, and goes round for ever.
 */
export function signal(scene: Scene, step: Of<"fork" | "kill" | "signal">): Resolved {
  const actor = actorOf(scene, step);
  const waiting = [...actor.pending.values()].filter(
    ({ family, byItself, bringsPages }) =>
      byItself === true || family === "read" || (family === "space" && !bringsPages),
  );
  const target = waiting[step.thread % Math.max(1, waiting.length)];
  if (target === undefined) return new Skip("nobody waits who could take a signal");
  return {
    name: "signal",
    text: `signal thread ${target.thread}`,
    actor: actor.index,
    run: (host, actor) => {
      const { pid } = actor.process;
      const tid = actor.threads[target.thread]?.tid ?? -1;
      host.say(`signal ${resultText(actor.process.call("tgkill", pid, tid, SIGNAL.SIGUSR1))}`);
    },
  };
}
