// A process and all that were forked from it: they share the control memory, and nothing of them may survive us.

import { ControlMemory } from "./control.ts";
import type { GuestProcess } from "./process.ts";
import type { Program } from "./program.ts";
import type { Slot } from "./slot.ts";
import type { GuestThread } from "./thread.ts";

/** Families with a living process. */
const living = new Set<Family>();
let hooked = false;

/** A fork that has been begun and whose child nobody has asked for yet. */
export interface Birth {
  readonly slot: Slot;
  /** The child, if it lives by now. */
  child(): GuestProcess | undefined;
}

export class Family {
  readonly program: Program;
  /** Of a system call of a control thread, of a birth, of an end, and of `settle`. */
  readonly deadlineMs: number;
  readonly control = new ControlMemory();
  readonly members = new Set<GuestProcess>();
  readonly births = new Set<Birth>();

  constructor(program: Program, deadlineMs: number) {
    this.program = program;
    this.deadlineMs = deadlineMs;
    living.add(this);
    if (!hooked) {
      hooked = true;
      process.on("exit", () => {
        for (const family of [...living]) family.kill();
      });
    }
  }

  get closed(): boolean {
    return !living.has(this);
  }

  *threads(): Iterable<GuestThread> {
    for (const member of this.members) yield* member.threads;
  }

  /** Ends every process of the family, children that nobody has seen yet too. */
  kill(): void {
    for (const member of [...this.members]) member.kill();
    for (const birth of [...this.births]) birth.child()?.kill();
    this.close();
  }

  /** A process has ended. */
  bury(member: GuestProcess): void {
    this.members.delete(member);
    if (this.members.size === 0 && this.births.size === 0) this.close();
  }

  close(): void {
    if (!living.delete(this)) return;
    // Who is born later than this finds that it has no owner, and ends itself.
    for (const birth of this.births) birth.slot.disown();
    this.control.close();
  }
}
