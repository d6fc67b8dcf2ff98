// What tells without reading whether there are messages: poll, select, epoll and fdinfo.

import { POLL } from "../../../abi/memory.ts";
import type { Actor } from "../actor.ts";
import type { Arguments } from "../arguments.ts";
import type { Action } from "../task.ts";
import type { Verbs } from "../verb.ts";
import { descriptorOption } from "./descriptor-option.ts";

const POLL_NAMES = Object.entries(POLL);
const KERNEL_SIGSET_BYTES = 8;

function poll(words: Arguments): Action {
  const descriptor = descriptorOption(words);
  words.end();
  return {
    kind: "look",
    look(actor) {
      const { address, view } = actor.process.scratch;
      const at = actor.allocate(32);
      view.setInt32(at, descriptor(actor).fd, true);
      view.setInt16(at + 4, POLL.IN | POLL.PRI | POLL.OUT, true);
      view.setInt16(at + 6, 0, true);
      // The timeout stands behind struct pollfd: zero seconds.
      view.setBigUint64(at + 16, 0n, true);
      view.setBigUint64(at + 24, 0n, true);
      actor.must("ppoll", address + at, 1, address + at + 16, 0, KERNEL_SIGSET_BYTES);
      const events = view.getInt16(at + 6, true);
      const names = POLL_NAMES.filter(([, bit]) => (events & bit) !== 0).map(([name]) => name);
      return [{ label: "poll", value: names.join("|") || "0" }];
    },
  };
}

function select(words: Arguments): Action {
  const descriptor = descriptorOption(words);
  words.end();
  return {
    kind: "look",
    look(actor) {
      const { fd } = descriptor(actor);
      const { address, bytes } = actor.process.scratch;
      // Two sets of 1024 descriptors and a timeout of zero.
      const reading = actor.allocate(272);
      const writing = reading + 128;
      const timeout = writing + 128;
      bytes.fill(0, reading, timeout + 16);
      const [byte, bit] = [fd >> 3, 1 << (fd & 7)];
      for (const set of [reading, writing]) bytes[set + byte] = bit;
      actor.must("pselect6", fd + 1, address + reading, address + writing, 0, address + timeout, 0);
      const ready = (set: number) => Number((bytes[set + byte]! & bit) !== 0);
      return [{ value: `r=${ready(reading)},w=${ready(writing)}` }];
    },
  };
}

const EPOLL_CTL_ADD = 1;

function epoll(words: Arguments): Action {
  const descriptor = descriptorOption(words);
  words.end();
  return {
    kind: "look",
    look(actor) {
      const { fd } = descriptor(actor);
      const { address, view } = actor.process.scratch;
      const events = actor.allocate(64);
      const epollFd = actor.once(`epoll ${fd}`, () => {
        const made = actor.must("epoll_create1", 0);
        view.setUint32(events, POLL.IN, true);
        view.setBigUint64(events + 4, BigInt(fd), true);
        actor.must("epoll_ctl", made, EPOLL_CTL_ADD, fd, address + events);
        return made;
      });
      const ready = actor.must("epoll_pwait", epollFd, address + events, 4, 0, 0, KERNEL_SIGSET_BYTES);
      return [{ value: String(ready) }];
    },
  };
}

function fdinfoLines(actor: Actor, fd: number): Map<string, string> {
  const lines = actor.contents(`/proc/self/fdinfo/${fd}`).split("\n");
  return new Map(
    lines.map((line) => {
      const colon = line.indexOf(":");
      return [line.slice(0, colon), line.slice(colon + 1).trim()] as const;
    }),
  );
}

function pending(words: Arguments): Action {
  const descriptor = descriptorOption(words);
  words.end();
  return {
    kind: "look",
    look(actor) {
      const lines = fdinfoLines(actor, descriptor(actor).fd);
      return [{ value: `pending=${lines.get("pending")},total=${lines.get("total")}` }];
    },
  };
}

function fdinfo(words: Arguments): Action {
  const descriptor = descriptorOption(words);
  words.end();
  return {
    kind: "look",
    look: (actor) => [{ value: `API: ${fdinfoLines(actor, descriptor(actor).fd).get("API")}` }],
  };
}

export const READINESS_VERBS: Verbs = {
  poll: { usage: "poll", about: "poll(2) without waiting; says poll=IN, poll=ERR or poll=0", compile: poll },
  select: {
    usage: "select",
    about: "select(2) without waiting; says r=1,w=1 for readable and writable",
    compile: select,
  },
  epoll: {
    usage: "epoll",
    about: "level-triggered epoll without waiting; says how many descriptors are ready",
    compile: epoll,
  },
  pending: {
    usage: "pending",
    about: "says pending=n,total=m as /proc/self/fdinfo has them: unread faults, and all that wait",
    compile: pending,
  },
  fdinfo: { usage: "fdinfo", about: "says the API line of /proc/self/fdinfo", compile: fdinfo },
};
