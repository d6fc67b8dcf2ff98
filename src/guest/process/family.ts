// A process and all that were forked from it: they share the control memory, and nothing of them may survive us.

import { ControlMemory } from "./control.ts";
import type { GuestProcess } from "./process.ts";
import type { Program } from "./program.ts";
import type { GuestThread } from "./thread.ts";

/** Families with a living process. */
const living = new Set<Family>();
let hooked = false;

export class Family {
  readonly program: Program;
  readonly control = new ControlMemory();
  readonly members = new Set<GuestProcess>();

  constructor(program: Program) {
    this.program = program;
    living.add(this);
    if (!hooked) {
      hooked = true;
      process.on("exit", () => {
        for (const family of living) family.kill();
      });
    }
  }

  *threads(): Iterable<GuestThread> {
    for (const member of this.members) yield* member.threads;
  }

  kill(): void {
    for (const member of [...this.members]) member.kill();
    this.close();
  }

  close(): void {
    living.delete(this);
    this.control.close();
  }
}
