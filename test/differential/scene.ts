// What a step is resolved against: the first system in its present state, and what is known of the order of messages.

import type { Actor, Handle, Host } from "./host.ts";
import type { Order } from "./rules.ts";
import type { Step } from "./steps.ts";

/** Something that is done on a system, the same on both. Decided once, on the state of the first. */
export interface Act {
  /** For counting. */
  readonly name: string;
  /** What it is in this state: with places, handles and modes. */
  readonly text: string;
  readonly actor: number;
  /** Does it, or begins it; what comes out at once is said to the host. */
  readonly run: (host: Host, actor: Actor) => void;
}

export interface Scene {
  readonly host: Host;
  readonly order: Order;
  /** Whether the program has the area of huge pages. */
  readonly huge: boolean;
}

/** Why a step can't be done now. */
export class Skip {
  readonly reason: string;

  constructor(reason: string) {
    this.reason = reason;
  }
}

export type Resolved = Act | Skip;

/** The process that a step means. */
export function actorOf(scene: Scene, step: Step): Actor {
  const { living } = scene.host;
  return living[step.actor % living.length] as Actor;
}

/** The index of the userfaultfd that a step means; undefined if the process has none. */
export function handleOf(
  actor: Actor,
  index: number,
): { readonly index: number; readonly handle: Handle } | undefined {
  if (actor.handles.length === 0) return undefined;
  const which = index % actor.handles.length;
  return { index: which, handle: actor.handles[which] as Handle };
}

export function flagsText(value: number, names: Readonly<Record<string, number>>): string {
  const set = Object.entries(names).filter(([, bit]) => (value & bit) !== 0);
  const rest = set.reduce((left, [, bit]) => left & ~bit, value);
  const parts = set.map(([name]) => name);
  if (rest !== 0) parts.push(`0x${(rest >>> 0).toString(16)}`);
  return parts.join("|") || "0";
}
