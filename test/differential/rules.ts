// What keeps programs out of the corners where Linux itself gives no order (spec sections 2.3, 2.0 and 7), so that a
// difference between the two systems is always one of behaviour.
//
// - Several waiters that are woken at once come back in any order: from then on their messages are taken all
//   together and compared sorted (`Order`).
// - A thread that waits for its event to be read changes memory as soon as it is: what else would be woken by the same
//   step, or would change memory meanwhile, is not done.
// - A COPY that waits for its source and a thread that waits to write there are not woken together.
// - One blocking reader a context: of two, anybody may get the message.

import type { Host, Pending } from "./host.ts";

/** What is known of a program's past: the contexts whose unread messages have no certain order, and moved memory. */
export class Order {
  readonly #uncertain = new Set<number>();
  /** Whether a mapping of the object may be in another area by now. */
  moved = false;
  /** Whether a message was read to a bad address: a child's descriptor may be lost with it, and never be closed. */
  lost = false;

  /** A step follows that may wake waiters: if there are several, their next messages come in any order. */
  wake(host: Host): void {
    if (waiters(host) < 2) return;
    for (let context = 0; context < host.contexts; context++) this.#uncertain.add(context);
  }

  /** All messages have been taken. */
  drained(context: number): void {
    this.#uncertain.delete(context);
  }

  isLost(context: number): boolean {
    return this.#uncertain.has(context);
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

/** The same for a step that brings no page itself: see `refuseUnregister`. */
export function refuseBareWake(host: Host): string | undefined {
  const ofObjects = all(host).some(({ place }) => place !== undefined && place >= 2);
  return refuseWake(host) ?? (ofObjects ? refuseUnregister(host) : undefined);
}

/** Whether a COPY waits for a page of that area to take its bytes from. */
export function sourceWaits(host: Host, order: Order, area: number): boolean {
  return all(host).some(({ family, place }) => family === "fill" && mayBeSame(order, place, area));
}

/** Whether a thread waits in that area to write. */
export function writerWaits(host: Host, order: Order, area: number): boolean {
  return all(host).some(({ writes, place }) => writes === true && mayBeSame(order, place, area));
}

/** Areas 2 to 4 are the same object. */
function mayBeSame(order: Order, one: number | undefined, other: number): boolean {
  const ofObject = (area: number | undefined) => area !== undefined && area >= 2 && area <= 4;
  return order.moved || one === other || (ofObject(one) && ofObject(other));
}

/** Why a step that changes an address space can't be done now. */
export function refuseChange(host: Host): string | undefined {
  if (hasOriginator(host)) return "an event waits to be read";
  // Whoever raised the first event goes on as soon as it is read, and may raise another while the read goes on too.
  const greedy = all(host).some(({ messagesMax = 0 }) => messagesMax > 1);
  return greedy ? "somebody reads as many messages as there are" : undefined;
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
