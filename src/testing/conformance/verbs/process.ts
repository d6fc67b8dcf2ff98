// Processes and threads as such: fork, exit, signals, capabilities, limits, and any other system call.

import { SIGNAL } from "../../../abi/memory.ts";
import type { Word as Word64 } from "../../../abi/structs.ts";
import type { SyscallName, Thread } from "../../../abi/system.ts";
import type { Actor } from "../actor.ts";
import type { Arguments } from "../arguments.ts";
import { type Action, answer, BLOCKED, returned, type Task, type Token } from "../task.ts";
import type { Value } from "../values.ts";
import type { Verbs } from "../verb.ts";

/** A thread by its name, "t1" or "c.t1", and the actor it belongs to. */
export function threadArgument(words: Arguments): Value<{ actor: Actor; name: string; thread: Thread }> {
  const word = words.require("a thread");
  const dot = word.text.indexOf(".");
  const name = word.text.slice(dot + 1);
  // A fork is asked about by the child's name.
  if (!words.scope.threads.has(word.text) && !words.scope.processes.has(name)) {
    const known = [...words.scope.threads].join(", ");
    words.fail(word, `a thread that the case has started (${known || "none so far"})`);
  }
  return (actor) => {
    const owner = dot < 0 ? actor : actor.machine.actor(word.text.slice(0, dot));
    return { actor: owner, name, thread: owner.thread(name) };
  };
}

function newProcess(words: Arguments): string {
  const word = words.require("a name for the child");
  if (!/^[a-z][a-z0-9]*$/.test(word.text) || /^t\d+$/.test(word.text)) {
    words.fail(word, "a name such as c, not one like t1, which is a thread");
  }
  words.scope.processes.add(word.text);
  return word.text;
}

/** fork(2) by a thread that is known by the child's name until the child is there: `?c` asks it. */
function fork(words: Arguments): Action {
  const name = newProcess(words);
  words.end();
  return {
    kind: "look",
    look(actor) {
      const { thread, child } = actor.process.fork();
      const forking: Task = {
        operation: { kind: "call", name: "clone", args: [] },
        render: (value) => [value < 0 ? returned(value) : { value: "done" }],
      };
      actor.nameThread(name, thread, forking);
      actor.machine.expect(name, actor, child);
      // A fork that waits for its event is no failure: the case reads the event next.
      return thread.ending === undefined ? [{ value: "blocked" }] : actor.outcome(name);
    },
  };
}

function processArgument(words: Arguments): Value<Actor> {
  const word = words.require("a process");
  if (word.text !== "main" && !words.scope.processes.has(word.text))
    words.fail(word, "a forked process, or main");
  return (actor) => actor.machine.actor(word.text);
}

function kill(words: Arguments): Action {
  const victim = processArgument(words);
  words.end();
  return {
    kind: "look",
    look(actor) {
      const { process } = victim(actor);
      process.kill();
      return [process.exited === undefined ? { value: "alive", failed: true } : { value: "killed" }];
    },
  };
}

/** wait4's status: the low seven bits are the signal that ended the process, the next byte is its exit code. */
function exit(words: Arguments): Action {
  const code = words.number("an exit code");
  words.end();
  return {
    kind: "look",
    look(actor): Token[] {
      // The thread behind `call` does it, since the others' ends are no sign that the process is gone.
      actor.process.call("exit_group", code(actor));
      const status = actor.process.exited;
      if (status === undefined) return [BLOCKED];
      if ((status & 0x7f) !== 0) return [{ value: `killed(${status & 0x7f})`, failed: true }];
      return [{ label: "exit", value: String((status >> 8) & 0xff) }];
    },
  };
}

function signal(words: Arguments): Action {
  const target = threadArgument(words);
  words.end();
  return {
    kind: "look",
    look(actor) {
      const { actor: owner, thread } = target(actor);
      owner.catchUserSignal(false);
      owner.must("tgkill", owner.process.pid, thread.tid, SIGNAL.SIGUSR1);
      actor.machine.settle();
      return [];
    },
  };
}

function handled(words: Arguments): Action {
  const target = threadArgument(words);
  words.end();
  return {
    kind: "look",
    look: (actor) => [{ label: "handler", value: String(target(actor).thread.signalsHandled) }],
  };
}

/** A handler that makes interrupted calls go on by themselves. */
function restart(words: Arguments): Action {
  words.end();
  return {
    kind: "look",
    look(actor) {
      actor.catchUserSignal(true);
      return [];
    },
  };
}

function finished(words: Arguments): Action {
  const threads = [threadArgument(words)];
  while (words.rest()) threads.push(threadArgument(words));
  return {
    kind: "look",
    look(actor) {
      actor.machine.settle();
      const ended = threads.filter((thread) => thread(actor).thread.ending !== undefined);
      return [{ value: String(ended.length) }];
    },
  };
}

/** The outcome of a thread: what `?t1` compiles to. */
export function outcome(words: Arguments): Action {
  const thread = threadArgument(words);
  words.end();
  return {
    kind: "look",
    look(actor) {
      const { actor: owner, name } = thread(actor);
      return owner.outcome(name);
    },
  };
}

const CAPABILITY_VERSION_3 = 0x20080522;
const CAPABILITIES = { ptrace: 19 } as const;

/** Drops a capability from the thread that opens descriptors. Effective set only: enough for every check. */
function drop(words: Arguments): Action {
  const word = words.require("a capability");
  if (word.text !== "ptrace") words.fail(word, "ptrace");
  words.scope.needs.add("restricted");
  words.end();
  const bit = 1 << CAPABILITIES.ptrace;
  return {
    kind: "look",
    look(actor) {
      const { address, view } = actor.process.scratch;
      const header = actor.allocate(8);
      // Two halves of {effective, permitted, inheritable}; CAP_SYS_PTRACE is in the first.
      const data = actor.allocate(24);
      view.setUint32(header, CAPABILITY_VERSION_3, true);
      view.setInt32(header + 4, 0, true);
      actor.must("capget", address + header, address + data);
      view.setUint32(data, view.getUint32(data, true) & ~bit, true);
      actor.must("capset", address + header, address + data);
      return [];
    },
  };
}

const RLIMIT_NOFILE = 7;

/** No further descriptor can be opened: the limit is lowered below every number. */
function limit(words: Arguments): Action {
  const word = words.require("a resource");
  if (word.text !== "descriptors") words.fail(word, "descriptors");
  words.end();
  return {
    kind: "look",
    look(actor) {
      const at = actor.allocate(16);
      const { address, view } = actor.process.scratch;
      actor.must("prlimit64", 0, RLIMIT_NOFILE, 0, address + at);
      view.setBigUint64(at, 0n, true);
      actor.must("prlimit64", 0, RLIMIT_NOFILE, address + at, 0);
      return [];
    },
  };
}

/** Calls that cases make by name; the rest have verbs. */
const CALLS: readonly SyscallName[] = ["fcntl", "lseek", "mmap", "read", "write", "sched_yield"];
const F_SETFL = 4;
const CONSTANTS = { F_SETFL, O_NONBLOCK: 0x800, PROT_READ: 1, MAP_PRIVATE: 2 };

function call(words: Arguments): Action {
  const word = words.require("a system call");
  const name = CALLS.find((candidate) => candidate === word.text);
  if (name === undefined) words.fail(word, `a system call (${CALLS.join(", ")})`);
  const args: Value<Word64>[] = [];
  while (words.rest()) args.push(callArgument(words));
  return {
    kind: "task",
    task: (actor) => ({
      operation: { kind: "call", name, args: args.map((argument) => argument(actor)) },
      prompt: true,
      render: (value, named) => {
        if (value >= 0) return [{ label: "done", value: String(value) }];
        return [named ? returned(value) : answer(value)];
      },
    }),
  };
}

/** A descriptor's name, `scratch` for a piece of good memory, or a number. */
function callArgument(words: Arguments): Value<Word64> {
  const word = words.peek();
  if (word !== undefined && words.scope.descriptors.has(word.text)) {
    words.next();
    return (actor) => actor.descriptor(word.text).fd;
  }
  if (word?.text === "scratch") {
    words.next();
    return (actor) => actor.process.scratch.address + actor.allocate(256);
  }
  return words.number("a descriptor, scratch, or a number", CONSTANTS);
}

export const PROCESS_VERBS: Verbs = {
  fork: {
    usage: "fork NAME",
    about:
      "fork(2); says done, or blocked while it waits for its event; `?NAME` asks again, `NAME: ...` acts in the child",
    compile: fork,
  },
  kill: { usage: "kill NAME", about: "SIGKILL to a process; says killed once it is gone", compile: kill },
  exit: {
    usage: "exit CODE",
    about: "exit_group(2); says exit=code once the process has ended",
    compile: exit,
  },
  signal: {
    usage: "signal THREAD",
    about: "SIGUSR1 to a thread, which has a handler without SA_RESTART; says nothing",
    compile: signal,
  },
  handled: {
    usage: "handled THREAD",
    about: "says handler= and how often the thread's handler has run",
    compile: handled,
  },
  restart: { usage: "restart", about: "gives the handler of SIGUSR1 the flag SA_RESTART", compile: restart },
  finished: {
    usage: "finished THREAD THREAD...",
    about: "says how many of these threads have ended what they did",
    compile: finished,
  },
  drop: { usage: "drop ptrace", about: "the process loses CAP_SYS_PTRACE", compile: drop },
  limit: { usage: "limit descriptors", about: "the process can open no further descriptor", compile: limit },
  call: {
    usage: "call NAME ARGUMENT...",
    about:
      "a system call as it is; arguments are numbers, descriptors by name, or scratch; says done=value or an errno",
    compile: call,
  },
};
