// What a step of a case does: a task for a thread, or a look at what is there; and the tokens it says.

import { errnoName } from "../../abi/errno.ts";
import { SIGNAL } from "../../abi/memory.ts";
import type { Ending, Operation } from "../../abi/system.ts";
import type { Actor } from "./actor.ts";

/** One word of a result: "OK", or "done=5" with the label "done". */
export interface Token {
  readonly label?: string;
  readonly value: string;
  /** The step did not succeed: fine when a case expects it, a mistake of the case in a silent step. */
  readonly failed?: boolean;
}

/** Something that a thread can be told to do and that may block. */
export interface Task {
  readonly operation: Operation;
  /** A call that doesn't wait for another thread: may be made by the thread of `Process.call`. */
  readonly prompt?: boolean;
  /** The same through the product's typed ioctls, when nobody asked for a thread. */
  readonly typed?: () => Token[];
  /** The tokens of an operation that ended by itself, not by a signal; `named` if a thread of the case did it. */
  readonly render: (value: number, named: boolean) => Token[];
  /** Print the address of a signal too. */
  readonly withAddress?: boolean;
}

/** What a parsed step does. Tasks may be given to a thread by name, looks can't. */
export type Action =
  | { readonly kind: "task"; readonly task: (actor: Actor) => Task }
  | { readonly kind: "look"; readonly look: (actor: Actor) => Token[] };

export const BLOCKED: Token = { value: "blocked", failed: true };

export function print(token: Token): string {
  return token.label === undefined ? token.value : `${token.label}=${token.value}`;
}

/** "OK", or the name of an errno. */
export function answer(errno: number): Token {
  return { value: errnoName(errno), failed: errno !== 0 };
}

/** An errno as a thread's system call ended with it: "ret:EFAULT". */
export function returned(result: number): Token {
  return { value: `ret:${errnoName(result)}`, failed: true };
}

/** How a system call ended: "done=16", or "ret:EFAULT". */
export function called(result: number): Token[] {
  if (result < 0) return [returned(result)];
  return [{ label: "done", value: String(result) }];
}

export interface EndingContext {
  readonly named: boolean;
  readonly relative: (address: number) => string;
}

export function endingTokens(task: Task, ending: Ending, context: EndingContext): Token[] {
  switch (ending.kind) {
    case "value":
      return task.render(ending.value, context.named);
    case "gone":
      return [{ value: "gone", failed: true }];
    case "signal": {
      const name = SIGNAL_NAMES.get(ending.signal) ?? `SIG${ending.signal}`;
      const tokens: Token[] = [{ value: `${name}(${ending.code})`, failed: true }];
      if (task.withAddress) tokens.push({ label: "addr", value: context.relative(ending.address) });
      return tokens;
    }
    default:
      return ending satisfies never;
  }
}

const SIGNAL_NAMES = new Map<number, string>(Object.entries(SIGNAL).map(([name, value]) => [value, name]));
