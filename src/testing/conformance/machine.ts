// The interpreter's state while one case runs: the processes, what has been said so far, and the deadline.

import type { System } from "../../abi/system.ts";
import { Actor } from "./actor.ts";
import type { Masks } from "./masks.ts";
import { CaseProblem } from "./problem.ts";
import { print, type Token } from "./task.ts";

/** The process that a step without a name belongs to. */
export const MAIN = "main";

interface Birth {
  readonly parent: Actor;
  readonly child: () => ReturnType<System["spawnProcess"]> | undefined;
}

export class Machine {
  readonly masks: Masks;
  readonly tokens: string[] = [];
  readonly #actors = new Map<string, Actor>();
  readonly #births = new Map<string, Birth>();
  readonly #deadlineMs: number;
  readonly #startMs = performance.now();

  constructor(system: System, masks: Masks, deadlineMs: number) {
    this.masks = masks;
    this.#deadlineMs = deadlineMs;
    this.#actors.set(MAIN, new Actor(this, MAIN, system.spawnProcess()));
  }

  actor(name: string): Actor {
    if (this.#births.has(name)) this.settle();
    const actor = this.#actors.get(name);
    if (actor !== undefined) return actor;
    throw new CaseProblem(
      this.#births.has(name) ? `The fork of ${name} is still blocked` : `There is no process ${name}`,
    );
  }

  /** A fork that has begun; the child is an actor as soon as it exists. */
  expect(name: string, parent: Actor, child: Birth["child"]): void {
    this.#births.set(name, { parent, child });
    this.settle();
  }

  /** Returns when nothing more happens by itself in any process. */
  settle(): void {
    this.checkDeadline();
    const actors = [...this.#actors.values()].filter((actor) => actor.process.exited === undefined);
    for (const actor of actors) actor.process.settle();
    // What a process did last may have woken a thread of one that had settled before it.
    if (actors.length > 1) for (const actor of actors) actor.process.settle();
    this.#receive();
  }

  say(tokens: readonly Token[]): void {
    for (const token of tokens) this.tokens.push(print(token));
  }

  checkDeadline(): void {
    const elapsed = performance.now() - this.#startMs;
    if (elapsed > this.#deadlineMs) {
      throw new CaseProblem(`The case did not finish within ${this.#deadlineMs} ms`);
    }
  }

  /** Ends every process, children first. Collects complaints so that none keeps the others alive. */
  close(): void {
    this.#receive();
    const failures: unknown[] = [];
    for (const actor of [...this.#actors.values()].reverse()) {
      try {
        actor.process.kill();
      } catch (error) {
        failures.push(error);
      }
    }
    if (failures.length > 0) throw new AggregateError(failures, "A process of the case could not be ended");
  }

  #receive(): void {
    for (const [name, { parent, child }] of this.#births) {
      const process = child();
      if (process === undefined) continue;
      this.#births.delete(name);
      this.#actors.set(name, new Actor(this, name, process, parent));
    }
  }
}
