// Opening descriptors and the handshake, and the short cuts with which most cases begin.

import { O, PAGE_SIZE } from "../../../abi/memory.ts";
import { uffdio } from "../../../abi/structs.ts";
import { UFFD_API, UFFD_FEATURE, UFFD_OPEN, UFFDIO, USERFAULTFD_IOC_NEW } from "../../../abi/userfaultfd.ts";
import { Ioctls } from "../../../uffd/ioctls.ts";
import type { Actor } from "../actor.ts";
import type { Arguments } from "../arguments.ts";
import { CaseProblem } from "../problem.ts";
import { type Action, answer, type Token } from "../task.ts";
import type { Value } from "../values.ts";
import type { Verbs } from "../verb.ts";
import { descriptorOption } from "./descriptor-option.ts";
import { registerMode } from "./fill.ts";
import { requestAction } from "./request.ts";

const OPEN = { user: UFFD_OPEN.USER_MODE_ONLY, nonblock: UFFD_OPEN.NONBLOCK, cloexec: UFFD_OPEN.CLOEXEC };
const FCNTL = { F_GETFD: 1, F_GETFL: 3 } as const;
const O_ACCMODE = 3;
const DEVICE = "/dev/userfaultfd";

/** Takes the name that a step gives to what it opens. */
function newDescriptor(words: Arguments, otherwise?: string): string {
  const word = words.next();
  const name = word?.text ?? otherwise ?? words.missing("a name for the descriptor");
  if (word !== undefined && !/^[a-z][a-z0-9]*$/.test(name)) words.fail(word, "a name such as v");
  words.scope.descriptors.add(name);
  return name;
}

function open(words: Arguments): Action {
  const fromDevice = words.optionOf("from", ["device"]) !== undefined;
  if (fromDevice) words.scope.needs.add("device");
  const named = words.bits(OPEN) ?? 0n;
  const name = newDescriptor(words);
  const more = words.rest() ? words.number("flags") : () => 0n;
  words.end();
  return {
    kind: "look",
    look(actor) {
      const flags = Number(named | more(actor));
      const fd = fromDevice
        ? actor.process.call("ioctl", actor.file(DEVICE, O.RDWR), USERFAULTFD_IOC_NEW, flags)
        : actor.process.call("userfaultfd", flags);
      if (fd >= 0) actor.nameDescriptor(name, fd, (flags & UFFD_OPEN.NONBLOCK) === 0);
      return [answer(Math.min(fd, 0))];
    },
  };
}

/** `features=`, `blocking` and `user`: what the short cuts can vary. */
function handshake(words: Arguments): (actor: Actor, name: string) => Ioctls {
  const features = words.optionNumber("features", UFFD_FEATURE);
  const blocking = words.flag("blocking");
  const user = words.flag("user");
  return (actor, name) => {
    const flags =
      UFFD_OPEN.CLOEXEC | (blocking ? 0 : UFFD_OPEN.NONBLOCK) | (user ? UFFD_OPEN.USER_MODE_ONLY : 0);
    const fd = actor.must("userfaultfd", flags);
    actor.nameDescriptor(name, fd, blocking);
    const ioctls = new Ioctls(actor.process, fd, actor.allocate(128));
    const { errno } = ioctls.api(features?.(actor) ?? 0n);
    if (errno !== 0) throw new CaseProblem(`API answered ${answer(errno).value}`);
    return ioctls;
  };
}

function uffd(words: Arguments): Action {
  const shake = handshake(words);
  const name = newDescriptor(words, "u");
  words.end();
  return silently((actor) => void shake(actor, name));
}

function std(words: Arguments): Action {
  const shake = handshake(words);
  const mode = registerMode(words);
  words.end();
  return silently((actor) => {
    const { base, pages, pageBytes } = actor.area("a");
    const { errno } = shake(actor, "u").register(base, pages * pageBytes, mode(actor));
    if (errno !== 0) throw new CaseProblem(`REGISTER answered ${answer(errno).value}`);
  });
}

function api(words: Arguments): Action {
  return requestAction(words, () => {
    const version = words.optionNumber("version");
    const features = words.optionNumber("features", UFFD_FEATURE);
    const wholeStruct = words.flag("struct");
    return {
      number: UFFDIO.API,
      struct: uffdio.api,
      // The answer's field holds something, so that it shows whether it was zeroed or left alone.
      fields: (actor) => ({
        api: version?.(actor) ?? UFFD_API,
        features: features?.(actor) ?? 0n,
        ioctls: 0x5a5a,
      }),
      typed: (ioctls, { features, api }) => ioctls.api(features, api),
      wholeStruct,
    };
  });
}

function device(words: Arguments): Action {
  words.scope.needs.add("device");
  const name = newDescriptor(words);
  words.end();
  return silently((actor) => actor.nameDescriptor(name, actor.file(DEVICE, O.RDWR), false));
}

/** What fcntl(2) says of a descriptor, in the order in which the case asks. */
function fdflags(words: Arguments): Action {
  const descriptor = descriptorOption(words);
  const asked: ("cloexec" | "nonblock" | "accmode")[] = [];
  for (let word = words.next(); word !== undefined; word = words.next()) {
    const { text } = word;
    if (text !== "cloexec" && text !== "nonblock" && text !== "accmode") {
      words.fail(word, "cloexec, nonblock or accmode");
    }
    asked.push(text);
  }
  return {
    kind: "look",
    look(actor) {
      const { fd } = descriptor(actor);
      const status = actor.must("fcntl", fd, FCNTL.F_GETFL, 0);
      const values = {
        cloexec: () => actor.must("fcntl", fd, FCNTL.F_GETFD, 0) & 1,
        nonblock: () => Number((status & O.NONBLOCK) !== 0),
        accmode: () => status & O_ACCMODE,
      };
      return asked.map((label): Token => ({ label, value: String(values[label]()) }));
    },
  };
}

function dup(words: Arguments): Action {
  const descriptor = descriptorOption(words);
  const name = newDescriptor(words);
  words.end();
  return silently((actor) => {
    const { fd, blocking } = descriptor(actor);
    actor.nameDescriptor(name, actor.must("dup", fd), blocking);
  });
}

/** Closes a descriptor; its name keeps standing for the number, which is no descriptor any more. */
function close(words: Arguments): Action {
  const word = words.next();
  if (word !== undefined && !words.scope.descriptors.has(word.text)) words.fail(word, "a descriptor");
  words.end();
  return silently((actor) => void actor.must("close", actor.descriptor(word?.text ?? "u").fd));
}

const IOCTL_NAMES = { FIONREAD: 0x541b, NEW: USERFAULTFD_IOC_NEW };

function ioctl(words: Arguments): Action {
  const descriptor = descriptorOption(words);
  const number = words.number("the number of an ioctl", IOCTL_NAMES);
  const argument: Value<bigint> | undefined = words.rest() ? words.number("an argument") : undefined;
  words.end();
  return {
    kind: "task",
    task(actor) {
      const pointer = () => BigInt(actor.process.scratch.address + actor.allocate(PAGE_SIZE / 16));
      const args = [descriptor(actor).fd, number(actor), argument?.(actor) ?? pointer()];
      return {
        operation: { kind: "call", name: "ioctl", args },
        prompt: true,
        render: (value) => [answer(Math.min(value, 0))],
      };
    },
  };
}

function silently(act: (actor: Actor) => void): Action {
  return {
    kind: "look",
    look(actor) {
      act(actor);
      return [];
    },
  };
}

export const OPEN_VERBS: Verbs = {
  std: {
    usage: "std [missing|wp|minor] [features=A|B] [blocking] [user]",
    about:
      "opens u (non-blocking, close on exec), shakes hands, and registers all of area a, MISSING if not told",
    compile: std,
  },
  uffd: {
    usage: "uffd [NAME] [features=A|B] [blocking] [user]",
    about: "opens a descriptor (u without a name) and shakes hands; registers nothing",
    compile: uffd,
  },
  open: {
    usage: "open NAME [cloexec] [nonblock] [user] [N] [from=device]",
    about: "userfaultfd(2) with these flags, or the same through /dev/userfaultfd; says OK or an errno",
    compile: open,
  },
  api: {
    usage: "api [version=N] [features=A|B] [struct]",
    about: "UFFDIO_API; struct adds the whole struct as {api,features,ioctls}",
    compile: api,
  },
  device: { usage: "device NAME", about: "opens /dev/userfaultfd itself", compile: device },
  fdflags: {
    usage: "fdflags [cloexec] [nonblock] [accmode]",
    about: "says the flags that fcntl(2) reports, as cloexec=1",
    compile: fdflags,
  },
  dup: { usage: "dup NAME", about: "another descriptor for the same userfaultfd", compile: dup },
  close: { usage: "close [NAME]", about: "closes a descriptor (u)", compile: close },
  ioctl: {
    usage: "ioctl N [ARGUMENT]",
    about: "any ioctl by its number, on good memory or with an argument by value; says OK or an errno",
    compile: ioctl,
  },
};
