// What keeps programs out of the corners where Linux itself gives no order (spec sections 2.3, 2.0 and 7), so that a
// difference between the two systems is always one of behaviour.
//
// - Several waiters that are woken at once come back in any order: from then on their messages are taken all
//   together and compared sorted (`Order`).
// - A thread that waits for its event to be read changes memory as soon as it is: what else would be woken by the same
//   step, or would change memory meanwhile, is not done.
// - One blocking reader a context: of two, anybody may get the message.

import type { Host, Pending } from "./host.ts";

/** The contexts whose unread messages have no certain order. */
export class Order {
  readonly #lost = new Set<number>();

  /** A step follows that may wake waiters: if there are several, their next messages come in any order. */
  wake(host: Host): void {
    if (waiters(host) < 2) return;
    for (let context = 0; context < host.contexts; context++) this.#lost.add(context);
  }

  /** All messages have been taken. */
  drained(context: number): void {
    this.#lost.delete(context);
  }

  isLost(context: number): boolean {
    return this.#lost.has(context);
  }
}

function all(host: Host): Pending[] {
  return host.living.flatMap((actor) => [...actor.pending.values()]);
}

/** How many threads wait at a page. */
export function waiters(host: Host): number {
  return all(host).filter(({ family }) => family === "access" || family === "fill").length;
}

/** Whether a thread waits for its event to be read. */
export function hasOriginator(host: Host): boolean {
  return host.births > 0 || all(host).some(({ family }) => family === "space");
}

export function hasReader(host: Host, context?: number): boolean {
  return all(host).some(
    (pending) => pending.family === "read" && (context === undefined || pending.context === context),
  );
}

/** Why a step that may wake waiters can't be done now, or undefined. */
export function refuseWake(host: Host): string | undefined {
  if (waiters(host) >= 2 && hasReader(host)) return "two waiters, and a reader who would get one of them";
  return undefined;
}

/** Why a step that changes an address space can't be done now. */
export function refuseChange(host: Host): string | undefined {
  return hasOriginator(host) ? "an event waits to be read" : undefined;
}

/** Why a step can't be done now after which waiters go on by themselves, without their page having been brought. */
export function refuseRelease(host: Host): string | undefined {
  if (hasOriginator(host)) return "an event waits to be read";
  return refuseWake(host) ?? refuseUnregister(host);
}

/**
 * The same for a step that ends no context. A read of a cached page maps its neighbours too (fault-around), so of
 * two waiters in shared objects the first decides what is present after both.
 */
export function refuseUnregister(host: Host): string | undefined {
  return waiters(host) >= 2 ? "two waiters would bring their pages in any order" : undefined;
}
