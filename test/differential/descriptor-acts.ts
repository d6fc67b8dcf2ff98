// Steps about userfaultfds as descriptors: opening, the handshake, messages, poll, closing.

import { O, POLL } from "../../src/abi/memory.ts";
import { decodeMessage, UFFD_MSG_SIZE, type UffdMessage } from "../../src/abi/message.ts";
import { uffdio } from "../../src/abi/structs.ts";
import { UFFD_FEATURE, UFFD_PAGEFAULT_FLAG, UFFDIO } from "../../src/abi/userfaultfd.ts";
import { placeName } from "./arena.ts";
import { type Actor, type Host, resultText, THREADS } from "./host.ts";
import { hasOriginator, hasReader, refuseRelease } from "./rules.ts";
import { actorOf, flagsText, handleOf, type Resolved, type Scene, Skip } from "./scene.ts";
import type { Step } from "./steps.ts";

type Of<Kind extends Step["kind"]> = Extract<Step, { kind: Kind }>;

const BAD_POINTER = 0x1000;
const HANDLES_MAX = 5;
/** More than there are threads: whoever raises faults without end is cut off. */
const MESSAGES_MAX = 64;
const F_GETFL = 3;
const F_SETFL = 4;

const featureNames = Object.fromEntries(
  Object.entries(UFFD_FEATURE).map(([name, bit]) => [name, Number(bit)]),
) as Record<string, number>;

export function open(scene: Scene, step: Of<"open">): Resolved {
  const actor = actorOf(scene, step);
  if (actor.handles.length >= HANDLES_MAX) return new Skip("enough userfaultfds are open");
  const { flags, features, api } = step;
  return {
    name: "open",
    text: `open ${flagsText(flags, { NONBLOCK: O.NONBLOCK, CLOEXEC: O.CLOEXEC, USER_MODE_ONLY: 1 })}${
      api === "none" ? "" : `, API ${api === "bad" ? "0xab " : ""}${flagsText(features, featureNames)}`
    }`,
    actor: actor.index,
    run: (host, actor) => {
      const fd = actor.process.call("userfaultfd", flags);
      host.say(fd < 0 ? resultText(fd) : `handle ${actor.handles.length}`);
      if (fd < 0) return;
      actor.handles.push({ fd, context: host.newContext() });
      if (api !== "none") host.say(shakeHands(actor, fd, api === "bad" ? 0xab : 0xaa, features));
    },
  };
}

export function handshake(scene: Scene, step: Of<"handshake">): Resolved {
  const actor = actorOf(scene, step);
  const which = handleOf(actor, step.handle);
  if (which === undefined) return new Skip("no userfaultfd is open");
  return {
    name: "API",
    text: `API u${which.index} ${flagsText(step.features, featureNames)}`,
    actor: actor.index,
    run: (host, actor) => {
      host.say(shakeHands(actor, actor.handles[which.index]?.fd ?? -1, 0xaa, step.features));
    },
  };
}

function shakeHands(actor: Actor, fd: number, api: number, features: number): string {
  const { at, address } = actor.scratch(THREADS);
  uffdio.api.write(actor.view, at, { api, features, ioctls: 0x55 });
  const result = actor.process.ioctl(fd, UFFDIO.API, address);
  const answer = uffdio.api.read(actor.view, at);
  return `API ${resultText(result)} {${Object.values(answer).map((word) => word.toString(16))}}`;
}

export function read(scene: Scene, step: Of<"read">): Resolved {
  const { host, order } = scene;
  const actor = actorOf(scene, step);
  const which = handleOf(actor, step.handle);
  if (which === undefined) return new Skip("no userfaultfd is open");
  const { context } = which.handle;
  if (hasReader(host, context)) return new Skip("somebody reads already");
  const certain = !order.isLost(context);
  if (step.bytes >= UFFD_MSG_SIZE && (!certain || (hasOriginator(host) && step.bytes >= 2 * UFFD_MSG_SIZE))) {
    order.drained(context);
    return takeAll(actor.index, which.index);
  }
  const thread = actor.idle(step.thread);
  if (thread === undefined) return new Skip("no thread is idle");
  const bad = step.buffer === "bad";
  order.lost ||= bad;
  const { bytes } = step;
  const { index } = which;
  return {
    name: "read",
    text: `read u${index} ${bytes} bytes${bad ? " to a bad address" : ""} by thread ${thread}`,
    actor: actor.index,
    run: (host, actor) => {
      const { at, address } = actor.scratch(thread);
      const buffer = bad ? BAD_POINTER : address + 0x100;
      const finish = (value: number) => {
        if (value <= 0 || bad) return `read ${resultText(value)}`;
        const { faults, events } = messages(host, actor, at + 0x100, value);
        return `read ${value} ${[...faults, ...events].join(" ")}`;
      };
      const fd = actor.handles[index]?.fd ?? -1;
      host.begin(
        actor,
        { kind: "call", name: "read", args: [fd, buffer, bytes] },
        { thread, family: "read", context, messagesMax: Math.floor(bytes / UFFD_MSG_SIZE), finish },
      );
    },
  };
}

/**
 * Reads one message after the other, up to and with the first event: whoever raised it goes on at once and may raise
 * the next while we read. Faults are sorted, since their order is chance.
 */
function takeAll(actor: number, index: number): Resolved {
  return {
    name: "read all",
    text: `read all of u${index}`,
    actor,
    run: (host, actor) => {
      host.say(`read ${readAll(host, actor, actor.handles[index]?.fd ?? -1).join(" ")}`);
    },
  };
}

export function readAll(host: Host, actor: Actor, fd: number): string[] {
  const { at, address } = actor.scratch(THREADS);
  const flags = actor.process.call("fcntl", fd, F_GETFL, 0);
  actor.process.call("fcntl", fd, F_SETFL, flags | O.NONBLOCK);
  const faults: string[] = [];
  const events: string[] = [];
  let result = 0;
  while (events.length === 0 && faults.length < MESSAGES_MAX) {
    result = actor.process.read(fd, address, UFFD_MSG_SIZE);
    if (result !== UFFD_MSG_SIZE) break;
    const message = messages(host, actor, at, result);
    faults.push(...message.faults);
    events.push(...message.events);
  }
  actor.process.call("fcntl", fd, F_SETFL, flags);
  return [...faults.sort(), ...events, ...(result === UFFD_MSG_SIZE ? [] : [resultText(result)])];
}

/** The messages in memory as text. A child's descriptor becomes a handle of the reader's. */
function messages(host: Host, actor: Actor, at: number, byteLength: number) {
  const faults: string[] = [];
  const events: string[] = [];
  for (let offset = 0; offset < byteLength; offset += UFFD_MSG_SIZE) {
    const message = decodeMessage(actor.view, at + offset);
    if (message?.event === "pagefault") faults.push(messageText(host, message));
    else events.push(message === undefined ? "?" : messageText(host, message));
    if (message?.event === "fork") actor.handles.push({ fd: message.ufd, context: host.newContext() });
  }
  return { faults, events };
}

function messageText(host: Host, message: UffdMessage): string {
  switch (message.event) {
    case "pagefault": {
      const flags = flagsText(message.flags, UFFD_PAGEFAULT_FLAG);
      const who = message.ptid === 0 ? "" : `+${threadName(host, message.ptid)}`;
      return `PF(${flags})@${placeName(message.address)}${who}`;
    }
    case "fork":
      return "FORK";
    case "remap":
      return `REMAP(${placeName(message.from)} to ${placeName(message.to)}, 0x${message.len.toString(16)})`;
    case "remove":
    case "unmap":
      return `${message.event.toUpperCase()}[${placeName(message.start)}, ${placeName(message.end)})`;
    default:
      return message satisfies never;
  }
}

function threadName(host: Host, tid: number): string {
  for (const actor of host.actors) {
    const index = actor.threads.findIndex((thread) => thread.tid === tid);
    if (index >= 0) return `${actor.index}.${index}`;
  }
  return "somebody";
}

export function poll(scene: Scene, step: Of<"poll" | "close" | "duplicate">): Resolved {
  const actor = actorOf(scene, step);
  const which = handleOf(actor, step.handle);
  if (which === undefined) return new Skip("no userfaultfd is open");
  return {
    name: "poll",
    text: `poll u${which.index}`,
    actor: actor.index,
    run: (host, actor) => {
      const { at, address } = actor.scratch(THREADS);
      actor.view.setInt32(at, actor.handles[which.index]?.fd ?? -1, true);
      actor.view.setUint32(at + 4, POLL.IN | POLL.OUT, true);
      actor.view.setBigUint64(at + 8, 0n, true);
      actor.view.setBigUint64(at + 16, 0n, true);
      const result = actor.process.call("ppoll", address, 1, address + 8, 0, 8);
      host.say(`poll ${resultText(result)} ${flagsText(actor.view.getUint16(at + 6, true), POLL)}`);
    },
  };
}

export function close(scene: Scene, step: Of<"poll" | "close" | "duplicate">): Resolved {
  const actor = actorOf(scene, step);
  const which = handleOf(actor, step.handle);
  if (which === undefined) return new Skip("no userfaultfd is open");
  const refusal = refuseRelease(scene.host);
  if (refusal !== undefined) return new Skip(refusal);
  scene.order.wake(scene.host);
  return {
    name: "close",
    text: `close u${which.index}`,
    actor: actor.index,
    run: (host, actor) => {
      const [handle] = actor.handles.splice(which.index, 1);
      host.say(`close ${resultText(actor.process.call("close", handle?.fd ?? -1))}`);
    },
  };
}

export function duplicate(scene: Scene, step: Of<"poll" | "close" | "duplicate">): Resolved {
  const actor = actorOf(scene, step);
  const which = handleOf(actor, step.handle);
  if (which === undefined) return new Skip("no userfaultfd is open");
  if (actor.handles.length >= HANDLES_MAX) return new Skip("enough userfaultfds are open");
  return {
    name: "dup",
    text: `dup u${which.index}`,
    actor: actor.index,
    run: (host, actor) => {
      const handle = actor.handles[which.index];
      const fd = actor.process.call("dup", handle?.fd ?? -1);
      host.say(fd < 0 ? resultText(fd) : `handle ${actor.handles.length}`);
      if (fd >= 0 && handle !== undefined) actor.handles.push({ fd, context: handle.context });
    },
  };
}

export function blocking(scene: Scene, step: Of<"blocking">): Resolved {
  const actor = actorOf(scene, step);
  const which = handleOf(actor, step.handle);
  if (which === undefined) return new Skip("no userfaultfd is open");
  return {
    name: "fcntl",
    text: `fcntl u${which.index} ${step.on ? "blocking" : "non-blocking"}`,
    actor: actor.index,
    run: (host, actor) => {
      const fd = actor.handles[which.index]?.fd ?? -1;
      const flags = actor.process.call("fcntl", fd, F_GETFL, 0);
      const wanted = step.on ? flags & ~O.NONBLOCK : flags | O.NONBLOCK;
      host.say(
        `flags 0x${flags.toString(16)} ${resultText(actor.process.call("fcntl", fd, F_SETFL, wanted))}`,
      );
    },
  };
}
