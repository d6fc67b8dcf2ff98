// One program on two systems, step by step: after each step both come to rest, and everything that can be seen of
// them has to be the same.

import type { System } from "../../src/abi/system.ts";
import { MinorfaultError } from "../../src/base/errors.ts";
import { epilogue } from "./epilogue.ts";
import { Host } from "./host.ts";
import { resolve } from "./resolve.ts";
import { Order } from "./rules.ts";
import { type Act, type Scene, Skip } from "./scene.ts";
import type { Program } from "./steps.ts";

/** Where the systems parted. */
export interface Divergence {
  /** The acts up to and with the one after which they differed. */
  readonly acts: readonly string[];
  /** What only the first said, and what only the second. */
  readonly first: readonly string[];
  readonly second: readonly string[];
}

export interface Run {
  /** How often each act was done. */
  readonly counts: ReadonlyMap<string, number>;
  readonly divergence: Divergence | undefined;
}

export function compare(program: Program, systems: readonly [System, System]): Run {
  const counts = new Map<string, number>();
  const acts: string[] = [];
  const hosts: Host[] = [];
  try {
    for (const system of systems) hosts.push(new Host(system, program));
    const [first, second] = hosts as [Host, Host];
    const scene: Scene = { host: first, order: new Order(), huge: program.huge };
    const differ = (said: readonly (readonly string[])[]) => difference(acts, said as [string[], string[]]);
    for (const step of program.steps) {
      const act = resolve(scene, step);
      if (act instanceof Skip) continue;
      counts.set(act.name, (counts.get(act.name) ?? 0) + 1);
      acts.push(`${act.actor}: ${act.text}`);
      const divergence = differ([perform(first, act), perform(second, act)]);
      if (divergence !== undefined) return { counts, divergence };
    }
    for (const part of epilogue(first, scene.order)) {
      acts.push(`end: ${part.text}`);
      const divergence = differ([guarded(() => part.run(first)), guarded(() => part.run(second))]);
      if (divergence !== undefined) return { counts, divergence };
    }
    return { counts, divergence: undefined };
  } finally {
    for (const host of hosts) host.close();
  }
}

function perform(host: Host, act: Act): string[] {
  return guarded(() => {
    const actor = host.actors[act.actor];
    if (actor !== undefined) act.run(host, actor);
    host.settle();
    return host.observe();
  });
}

/** A system that doesn't come to rest, or fails in its own way, has said something too. */
function guarded(run: () => string[]): string[] {
  try {
    return run();
  } catch (error) {
    return [
      error instanceof MinorfaultError
        ? `${error.code}: ${error.message.replace(/\d{3,}/g, "N")}`
        : String(error),
    ];
  }
}

function difference(acts: readonly string[], [first, second]: [string[], string[]]): Divergence | undefined {
  if (first.length === second.length && first.every((line, index) => line === second[index]))
    return undefined;
  return {
    acts: [...acts],
    first: first.filter((line) => !second.includes(line)),
    second: second.filter((line) => !first.includes(line)),
  };
}
