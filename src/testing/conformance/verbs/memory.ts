// System calls that change mappings. A thread makes them, because events make their caller wait.

import { MADV, MAP, MREMAP, PAGE_SIZE, PROT } from "../../../abi/memory.ts";
import type { Word } from "../../../abi/structs.ts";
import type { SyscallName } from "../../../abi/system.ts";
import type { Actor } from "../actor.ts";
import type { Arguments } from "../arguments.ts";
import { type Action, answer, returned, type Task } from "../task.ts";
import type { Verbs } from "../verb.ts";

const ADVICE: Readonly<Record<string, number>> = Object.fromEntries(
  Object.entries(MADV).map(([name, value]) => [name.toLowerCase(), value]),
);

const PROTECTIONS = {
  none: PROT.NONE,
  r: PROT.READ,
  rw: PROT.READ | PROT.WRITE,
  rx: PROT.READ | PROT.EXEC,
  rwx: PROT.READ | PROT.WRITE | PROT.EXEC,
} as const;

/** The protection that a word names. */
export function protectionOf(words: Arguments, word: { text: string; at: number }): number {
  const found = Object.entries(PROTECTIONS).find(([name]) => name === word.text);
  if (found === undefined) words.fail(word, "none, r, rw, rx or rwx");
  return found[1];
}

/** A call that answers 0 or an address when it works: "done=0". */
function changing(build: (actor: Actor) => readonly [SyscallName, ...Word[]]): Action {
  return {
    kind: "task",
    task(actor): Task {
      const [name, ...args] = build(actor);
      return {
        operation: { kind: "call", name, args },
        render: (value) => [value < 0 ? returned(value) : { label: "done", value: "0" }],
      };
    },
  };
}

function madvise(words: Arguments): Action {
  const word = words.require("an advice such as dontneed");
  const advice = ADVICE[word.text] ?? words.fail(word, `an advice (${Object.keys(ADVICE).join(", ")})`);
  const place = words.place();
  words.end();
  return changing((actor) => {
    const { address, byteLength } = place(actor);
    return ["madvise", address, byteLength, advice];
  });
}

function simple(words: Arguments, name: "munmap" | "mlock"): Action {
  const place = words.place();
  words.end();
  return changing((actor) => {
    const { address, byteLength } = place(actor);
    return [name, address, byteLength];
  });
}

function mmap(words: Arguments): Action {
  const place = words.place();
  words.end();
  const flags = MAP.PRIVATE | MAP.ANONYMOUS | MAP.FIXED;
  return changing((actor) => {
    const { address, byteLength } = place(actor);
    return ["mmap", address, byteLength, PROT.READ | PROT.WRITE, flags, -1, 0];
  });
}

function mprotect(words: Arguments): Action {
  const place = words.place();
  const protection = protectionOf(words, words.require("a protection"));
  words.end();
  return changing((actor) => {
    const { address, byteLength } = place(actor);
    return ["mprotect", address, byteLength, protection];
  });
}

function mremap(words: Arguments): Action {
  const target = words.optionPlace("to");
  const pages = words.optionNumber("pages");
  const keep = words.flag("dontunmap");
  const place = words.place();
  words.end();
  const flags = (target ? MREMAP.MAYMOVE | MREMAP.FIXED : 0) | (keep ? MREMAP.MAYMOVE | MREMAP.DONTUNMAP : 0);
  return changing((actor) => {
    const { address, byteLength } = place(actor);
    const newLength = pages === undefined ? byteLength : Number(pages(actor)) * PAGE_SIZE;
    return ["mremap", address, byteLength, newLength, flags, target?.(actor).address ?? 0];
  });
}

function mincore(words: Arguments): Action {
  const place = words.place();
  words.end();
  return {
    kind: "look",
    look(actor) {
      const { address, byteLength } = place(actor);
      const pages = byteLength / PAGE_SIZE;
      const at = actor.allocate(pages);
      const { scratch } = actor.process;
      const result = actor.process.call("mincore", address, byteLength, scratch.address + at);
      if (result < 0) return [answer(result)];
      const bits = [...scratch.bytes.subarray(at, at + pages)].map((byte) => byte & 1);
      return [{ label: "mincore", value: bits.join("") }];
    },
  };
}

export const MEMORY_VERBS: Verbs = {
  madvise: {
    usage: "madvise ADVICE PLACE",
    about:
      "madvise(2) with dontneed, free, remove, willneed, populate_read, guard_install ...; says done=0 or blocked",
    compile: madvise,
  },
  munmap: { usage: "munmap PLACE", about: "munmap(2)", compile: (words) => simple(words, "munmap") },
  mmap: { usage: "mmap PLACE", about: "maps fresh private anonymous memory over the place", compile: mmap },
  mprotect: {
    usage: "mprotect PLACE PROT",
    about: "mprotect(2) to none, r, rw, rx or rwx",
    compile: mprotect,
  },
  mremap: {
    usage: "mremap PLACE [to=PLACE] [pages=N] [dontunmap]",
    about: "mremap(2): moves to a place, resizes, or both",
    compile: mremap,
  },
  mlock: { usage: "mlock PLACE", about: "mlock(2)", compile: (words) => simple(words, "mlock") },
  mincore: { usage: "mincore PLACE", about: "says mincore= and a bit a page", compile: mincore },
};
