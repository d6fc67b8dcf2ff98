// Touching memory: in user mode by a thread's own instructions, in kernel mode by what system calls do for it.

import type { Operation } from "../../../abi/system.ts";
import type { Actor } from "../actor.ts";
import type { Arguments } from "../arguments.ts";
import { type Action, called, type Token } from "../task.ts";
import { type Place, pageAddresses, type Value } from "../values.ts";
import type { Verbs } from "../verb.ts";

/** What write(2) and read(2) move when a case says nothing else. */
const KERNEL_BYTES = 16n;

function access(words: Arguments, build: (place: Place, actor: Actor) => Operation, say: SayValue): Action {
  const withAddress = words.flag("addr");
  const place = words.place();
  return {
    kind: "task",
    task: (actor) => ({
      operation: build(place(actor), actor),
      render: (value) => [say(value)],
      withAddress,
    }),
  };
}

type SayValue = (value: number) => Token;
const DONE: SayValue = () => ({ value: "done" });
const DONE_VALUE: SayValue = (value) => ({ label: "done", value: String(value) });

function read(words: Arguments): Action {
  const size = words.optionOf("size", ["1", "8"]) === "8" ? 8 : 1;
  const action = access(words, ({ address }) => ({ kind: "load", address, size }), DONE_VALUE);
  words.end();
  return action;
}

/** Takes the value before the place is known: `write PLACE VALUE`. */
function writing(words: Arguments, kind: "store" | "add", say: SayValue): Action {
  let value: Value<bigint> | undefined;
  const action = access(
    words,
    ({ address }, actor) => ({ kind, address, value: Number(value?.(actor) ?? 0n) }),
    say,
  );
  value = words.number("a byte to write");
  words.end();
  return action;
}

function execute(words: Arguments): Action {
  const action = access(words, ({ address }) => ({ kind: "execute", address }), DONE);
  words.end();
  return action;
}

function peek(words: Arguments): Action {
  const place = words.place();
  words.end();
  return {
    kind: "look",
    look: (actor) =>
      pageAddresses(place(actor)).flatMap((address) =>
        actor.perform({
          operation: { kind: "load", address, size: 1 },
          render: (value) => [{ value: String(value) }],
        }),
      ),
  };
}

function fill(words: Arguments): Action {
  const place = words.place();
  const value = words.number("a byte to write");
  words.end();
  return {
    kind: "look",
    look(actor) {
      for (const address of pageAddresses(place(actor))) {
        actor.mustPerform({ kind: "store", address, value: Number(value(actor)) });
      }
      return [];
    },
  };
}

/** write(2) to a file in memory, read(2) from /dev/zero: the kernel touches the place for the thread. */
function kernelAccess(words: Arguments, name: "write" | "read"): Action {
  const len = words.optionNumber("len");
  const place = words.place();
  words.end();
  return {
    kind: "task",
    task(actor) {
      const fd = name === "write" ? actor.sink() : actor.file("/dev/zero");
      const bytes = len?.(actor) ?? KERNEL_BYTES;
      return { operation: { kind: "call", name, args: [fd, place(actor).address, bytes] }, render: called };
    },
  };
}

function processVmReadv(words: Arguments): Action {
  const len = words.optionNumber("len");
  const place = words.place();
  words.end();
  return {
    kind: "task",
    task(actor) {
      const { address, view } = actor.process.scratch;
      const bytes = len?.(actor) ?? 8n;
      const target = actor.allocate(Number(bytes));
      const vectors = actor.allocate(32);
      view.setBigUint64(vectors, BigInt(address + target), true);
      view.setBigUint64(vectors + 8, bytes, true);
      view.setBigUint64(vectors + 16, place(actor).address, true);
      view.setBigUint64(vectors + 24, bytes, true);
      const args = [actor.process.pid, address + vectors, 1, address + vectors + 16, 1, 0];
      return { operation: { kind: "call", name: "process_vm_readv", args }, render: called };
    },
  };
}

export const ACCESS_VERBS: Verbs = {
  read: {
    usage: "read PLACE [size=8] [addr]",
    about: "loads a byte; says done=value, blocked, or SIGBUS(code); addr adds the signal's address",
    compile: read,
  },
  write: {
    usage: "write PLACE VALUE [addr]",
    about: "stores a byte; says done",
    compile: (words) => writing(words, "store", DONE),
  },
  add: {
    usage: "add PLACE VALUE",
    about: "adds to 8 bytes atomically; says done= and the lowest byte of what was there",
    compile: (words) => writing(words, "add", (value) => ({ label: "done", value: String(value % 256) })),
  },
  exec: {
    usage: "exec PLACE",
    about: "calls the code at the place, which must return; says done",
    compile: execute,
  },
  peek: {
    usage: "peek PLACE",
    about: "loads the first byte of each page and says the bare values",
    compile: peek,
  },
  fill: {
    usage: "fill PLACE VALUE",
    about: "stores the value in the first byte of each page; says nothing, and must not fault",
    compile: fill,
  },
  "write(2)": {
    usage: "write(2) PLACE [len=16]",
    about: "a thread writes memory to a file: the kernel reads the place; says done=bytes or ret:errno",
    compile: (words) => kernelAccess(words, "write"),
  },
  "read(2)": {
    usage: "read(2) PLACE [len=16]",
    about: "a thread reads /dev/zero into memory: the kernel writes the place",
    compile: (words) => kernelAccess(words, "read"),
  },
  process_vm_readv: {
    usage: "process_vm_readv PLACE [len=8]",
    about: "a thread reads its own process's memory through the kernel",
    compile: processVmReadv,
  },
};
