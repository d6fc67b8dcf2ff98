// Reading messages, and asking what the last one said.

import { ERRNO } from "../../../abi/errno.ts";
import { decodeMessage, UFFD_MSG_SIZE, type UffdMessage } from "../../../abi/message.ts";
import { UFFD_PAGEFAULT_FLAG } from "../../../abi/userfaultfd.ts";
import type { Actor } from "../actor.ts";
import type { Arguments } from "../arguments.ts";
import { CaseProblem } from "../problem.ts";
import { type Action, answer, returned, type Task, type Token } from "../task.ts";
import type { Verbs } from "../verb.ts";
import { descriptorOption } from "./descriptor-option.ts";
import { threadArgument } from "./process.ts";

const FLAGS: readonly (readonly [string, number])[] = [
  ["W", UFFD_PAGEFAULT_FLAG.WRITE],
  ["WP", UFFD_PAGEFAULT_FLAG.WP],
  ["MINOR", UFFD_PAGEFAULT_FLAG.MINOR],
  ["RWP", UFFD_PAGEFAULT_FLAG.RWP],
];

function flagNames(flags: number): string {
  const known = FLAGS.filter(([, bit]) => (flags & bit) !== 0);
  const rest = known.reduce((left, [, bit]) => left & ~bit, flags);
  const names = known.map(([name]) => name);
  if (rest !== 0) names.push(`0x${rest.toString(16)}`);
  return names.join("|") || "-";
}

function messageToken(actor: Actor, message: UffdMessage | undefined): Token {
  switch (message?.event) {
    case "pagefault": {
      const thread = message.ptid === 0 ? "" : "+tid";
      return { value: `PF(${flagNames(message.flags)})@${actor.relative(message.address)}${thread}` };
    }
    case "fork":
      return { value: "FORK" };
    case "remap":
      return { value: `REMAP(${actor.relative(message.from)},len=0x${message.len.toString(16)})` };
    case "remove":
    case "unmap":
      return {
        value: `${message.event.toUpperCase()}[${actor.relativeRange(message.start, message.end)})`,
      };
    default:
      return { value: "unknown-event", failed: true };
  }
}

/** Messages in the scratch memory become what the actor has read last. */
function received(actor: Actor, offset: number, byteLength: number): Token[] {
  const { view, bytes } = actor.process.scratch;
  const tokens: Token[] = [];
  for (let at = offset; at < offset + byteLength; at += UFFD_MSG_SIZE) {
    actor.lastMessage = decodeMessage(view, at);
    actor.lastBytes = bytes.slice(at, at + UFFD_MSG_SIZE);
    tokens.push(messageToken(actor, actor.lastMessage));
  }
  return tokens;
}

function message(words: Arguments): Action {
  const descriptor = descriptorOption(words);
  words.end();
  return {
    kind: "look",
    look(actor) {
      const { fd, blocking } = descriptor(actor);
      if (blocking) throw new CaseProblem("msg needs a non-blocking descriptor: use fdread by a thread");
      const offset = actor.allocate(UFFD_MSG_SIZE);
      const length = actor.process.read(fd, actor.process.scratch.address + offset, UFFD_MSG_SIZE);
      if (length === -ERRNO.EAGAIN) return [{ value: "nomsg", failed: true }];
      if (length < 0) return [answer(length)];
      return received(actor, offset, length);
    },
  };
}

/** An errno as the case's spec says it: bare when asked at once, "ret:" when a thread came back with it. */
function count(value: number, named: boolean): Token {
  if (value >= 0) return { value: String(value) };
  return named ? returned(value) : answer(value);
}

function fdread(words: Arguments): Action {
  const descriptor = descriptorOption(words);
  const to = words.optionPlace("to");
  const show = words.flag("show");
  const byteLength = words.number("a number of bytes");
  words.end();
  return {
    kind: "task",
    task(actor): Task {
      const { fd, blocking } = descriptor(actor);
      const length = Number(byteLength(actor));
      const offset = to === undefined ? actor.allocate(length) : 0;
      const address = to?.(actor).address ?? actor.process.scratch.address + offset;
      return {
        operation: { kind: "call", name: "read", args: [fd, address, length] },
        prompt: !blocking,
        render(value, named) {
          const tokens = to === undefined ? received(actor, offset, Math.max(0, value)) : [];
          return [count(value, named), ...(show ? tokens : [])];
        },
      };
    },
  };
}

function fdreadv(words: Arguments): Action {
  const descriptor = descriptorOption(words);
  const lengths = [words.number("a number of bytes")];
  while (words.rest()) lengths.push(words.number("a number of bytes"));
  return {
    kind: "task",
    task(actor): Task {
      const { fd, blocking } = descriptor(actor);
      const { address, view } = actor.process.scratch;
      const vectors = actor.allocate(16 * lengths.length);
      for (const [index, length] of lengths.entries()) {
        const bytes = length(actor);
        view.setBigUint64(vectors + 16 * index, BigInt(address + actor.allocate(Number(bytes))), true);
        view.setBigUint64(vectors + 16 * index + 8, bytes, true);
      }
      return {
        operation: { kind: "call", name: "readv", args: [fd, address + vectors, lengths.length] },
        prompt: !blocking,
        render: (value, named) => [count(value, named)],
      };
    },
  };
}

function restzero(words: Arguments): Action {
  words.end();
  return {
    kind: "look",
    look(actor) {
      // Bytes 1 to 7 are reserved; a fault uses 8 to 24, and its thread id is 0 without THREAD_ID.
      const rest = [...actor.lastBytes.slice(1, 8), ...actor.lastBytes.slice(24)];
      return [
        { label: "restzero", value: String(Number(rest.length > 0 && rest.every((byte) => byte === 0))) },
      ];
    },
  };
}

function match(words: Arguments): Action {
  const thread = threadArgument(words);
  words.end();
  return {
    kind: "look",
    look(actor) {
      const last = actor.lastMessage;
      const same = last?.event === "pagefault" && last.ptid === thread(actor).thread.tid;
      return [{ label: "match", value: String(Number(same)) }];
    },
  };
}

function to(words: Arguments): Action {
  const place = words.place();
  words.end();
  return {
    kind: "look",
    look(actor) {
      const last = actor.lastMessage;
      if (last?.event !== "remap") throw new CaseProblem("The last message is no REMAP");
      const same = BigInt(last.to) === place(actor).address;
      return [{ label: "to", value: same ? "ok" : actor.relative(last.to), failed: !same }];
    },
  };
}

function adopt(words: Arguments): Action {
  const name = words.require("a name for the child's descriptor").text;
  words.scope.descriptors.add(name);
  words.end();
  return {
    kind: "look",
    look(actor) {
      const last = actor.lastMessage;
      if (last?.event !== "fork") throw new CaseProblem("The last message is no FORK");
      actor.nameDescriptor(name, last.ufd, false);
      const good = actor.process.call("fcntl", last.ufd, 1, 0) >= 0;
      return [{ label: "fd", value: good ? "ok" : "bad", failed: !good }];
    },
  };
}

export const MESSAGE_VERBS: Verbs = {
  msg: {
    usage: "msg",
    about: "reads one message: PF(flags)@offset, REMOVE[a,b), UNMAP[a,b), REMAP(from,len=n), FORK, or nomsg",
    compile: message,
  },
  fdread: {
    usage: "fdread BYTES [to=PLACE] [show]",
    about:
      "read(2) from the descriptor; says the count or an errno (ret: by a named thread); show adds the messages",
    compile: fdread,
  },
  fdreadv: {
    usage: "fdreadv BYTES BYTES...",
    about: "readv(2) from the descriptor into buffers of these sizes; says the count",
    compile: fdreadv,
  },
  restzero: {
    usage: "restzero",
    about: "says restzero=1 if all bytes that the last message (a fault) does not use are zero",
    compile: restzero,
  },
  match: {
    usage: "match THREAD",
    about: "says match=1 if the thread id in the last message is this thread's",
    compile: match,
  },
  to: {
    usage: "to PLACE",
    about: "says to=ok if the last REMAP message went there",
    compile: to,
  },
  adopt: {
    usage: "adopt NAME",
    about: "names the descriptor that came with the last FORK message; says fd=ok if it is one",
    compile: adopt,
  },
};
