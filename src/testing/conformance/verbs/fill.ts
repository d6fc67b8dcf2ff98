// The ioctls on ranges: register, unregister, wake, the fills, and write protection.

import { uffdio } from "../../../abi/structs.ts";
import {
  UFFDIO,
  UFFDIO_CONTINUE_MODE,
  UFFDIO_COPY_MODE,
  UFFDIO_MOVE_MODE,
  UFFDIO_POISON_MODE,
  UFFDIO_REGISTER_MODE,
  UFFDIO_WRITEPROTECT_MODE,
  UFFDIO_ZEROPAGE_MODE,
} from "../../../abi/userfaultfd.ts";
import type { Actor } from "../actor.ts";
import type { Arguments } from "../arguments.ts";
import type { Action } from "../task.ts";
import type { Place, Value } from "../values.ts";
import type { Verbs } from "../verb.ts";
import { requestAction } from "./request.ts";

type Names = Readonly<Record<string, bigint | number>>;

/** Mode names of a case: the header's, in small letters. */
const REGISTER = {
  missing: UFFDIO_REGISTER_MODE.MISSING,
  wp: UFFDIO_REGISTER_MODE.WP,
  minor: UFFDIO_REGISTER_MODE.MINOR,
};
const COPY = { dontwake: UFFDIO_COPY_MODE.DONTWAKE, wp: UFFDIO_COPY_MODE.WP };
const ZEROPAGE = { dontwake: UFFDIO_ZEROPAGE_MODE.DONTWAKE };
const CONTINUE = { dontwake: UFFDIO_CONTINUE_MODE.DONTWAKE, wp: UFFDIO_CONTINUE_MODE.WP };
const POISON = { dontwake: UFFDIO_POISON_MODE.DONTWAKE };
const WRITEPROTECT = { dontwake: UFFDIO_WRITEPROTECT_MODE.DONTWAKE };
const MOVE = { dontwake: UFFDIO_MOVE_MODE.DONTWAKE, holes: UFFDIO_MOVE_MODE.ALLOW_SRC_HOLES };

/** The mode: `mode=` with any bits, else the words that name bits, else what the verb means without them. */
export function modeArgument(words: Arguments, names: Names, otherwise: number): Value<bigint> {
  const given = words.optionNumber("mode", names);
  const named = words.bits(names);
  return given ?? (() => named ?? BigInt(otherwise));
}

export function registerMode(words: Arguments): Value<bigint> {
  return modeArgument(words, REGISTER, UFFDIO_REGISTER_MODE.MISSING);
}

/** The range of a step: a place, with `len=` if another length is asked for. */
export function rangeArgument(words: Arguments, otherwise?: string): Value<{ start: bigint; len: bigint }> {
  const len = words.optionNumber("len");
  const place = words.place(otherwise);
  return (actor) => {
    const { address, byteLength } = place(actor);
    return { start: address, len: len?.(actor) ?? BigInt(byteLength) };
  };
}

function register(words: Arguments): Action {
  return requestAction(words, () => {
    const mode = registerMode(words);
    const range = rangeArgument(words, "a");
    return {
      number: UFFDIO.REGISTER,
      struct: uffdio.register,
      output: { field: "ioctls", format: "mask" },
      fields: (actor) => ({ ...range(actor), mode: mode(actor) }),
      typed: (ioctls, { start, len, mode }) => ioctls.register(start, len, mode),
    };
  });
}

function unregister(words: Arguments): Action {
  return requestAction(words, () => ({
    number: UFFDIO.UNREGISTER,
    struct: uffdio.range,
    fields: rangeArgument(words, "a"),
    typed: (ioctls, { start, len }) => ioctls.unregister(start, len),
  }));
}

function wake(words: Arguments): Action {
  return requestAction(words, () => ({
    number: UFFDIO.WAKE,
    struct: uffdio.range,
    fields: rangeArgument(words),
    typed: (ioctls, { start, len }) => ioctls.wake(start, len),
  }));
}

/** COPY and MOVE: a target and a source. */
function sourced(words: Arguments, names: Names, sourceOtherwise: string | undefined) {
  const mode = modeArgument(words, names, 0);
  const from = sourceArgument(words, sourceOtherwise);
  const range = rangeArgument(words);
  return (actor: Actor) => {
    const { start, len } = range(actor);
    return { dst: start, src: from(actor).address, len, mode: mode(actor) };
  };
}

function sourceArgument(words: Arguments, otherwise: string | undefined): Value<Place> {
  const given = words.optionPlace("from");
  if (given !== undefined) return given;
  const name = otherwise ?? words.missing("from=PLACE");
  return (actor) => ({
    address: BigInt(actor.area(name).base),
    byteLength: 0,
    pageBytes: actor.pageBytes(name),
  });
}

function copy(words: Arguments): Action {
  return requestAction(words, () => ({
    number: UFFDIO.COPY,
    struct: uffdio.copy,
    output: { field: "copy", format: "signed" },
    fields: sourced(words, COPY, "s"),
    typed: (ioctls, { dst, src, len, mode }) => ioctls.copy(dst, src, len, mode),
  }));
}

function move(words: Arguments): Action {
  return requestAction(words, () => ({
    number: UFFDIO.MOVE,
    struct: uffdio.move,
    output: { field: "move", format: "signed" },
    fields: sourced(words, MOVE, undefined),
    typed: (ioctls, { dst, src, len, mode }) => ioctls.move(dst, src, len, mode),
  }));
}

/** ZEROPAGE, CONTINUE, POISON and WRITEPROTECT: a range and a mode. */
function ranged(words: Arguments, names: Names) {
  const mode = modeArgument(words, names, 0);
  const range = rangeArgument(words);
  return (actor: Actor) => ({ ...range(actor), mode: mode(actor) });
}

function zeropage(words: Arguments): Action {
  return requestAction(words, () => ({
    number: UFFDIO.ZEROPAGE,
    struct: uffdio.zeropage,
    output: { field: "zeropage", format: "signed" },
    fields: ranged(words, ZEROPAGE),
    typed: (ioctls, { start, len, mode }) => ioctls.zeropage(start, len, mode),
  }));
}

function continuePages(words: Arguments): Action {
  return requestAction(words, () => ({
    number: UFFDIO.CONTINUE,
    struct: uffdio.continue,
    output: { field: "mapped", format: "signed" },
    fields: ranged(words, CONTINUE),
    typed: (ioctls, { start, len, mode }) => ioctls.continue(start, len, mode),
  }));
}

function poison(words: Arguments): Action {
  return requestAction(words, () => ({
    number: UFFDIO.POISON,
    struct: uffdio.poison,
    output: { field: "updated", format: "signed" },
    fields: ranged(words, POISON),
    typed: (ioctls, { start, len, mode }) => ioctls.poison(start, len, mode),
  }));
}

function writeprotect(words: Arguments, protect: boolean): Action {
  return requestAction(words, () => {
    const given = protect ? words.optionNumber("mode") : undefined;
    const named = words.bits(WRITEPROTECT) ?? 0n;
    const bits = named | BigInt(protect ? UFFDIO_WRITEPROTECT_MODE.WP : 0);
    const range = rangeArgument(words);
    return {
      number: UFFDIO.WRITEPROTECT,
      struct: uffdio.writeprotect,
      fields: (actor) => ({ ...range(actor), mode: given?.(actor) ?? bits }),
      typed: (ioctls, { start, len, mode }) => ioctls.writeprotect(start, len, mode),
    };
  });
}

export const FILL_VERBS: Verbs = {
  register: {
    usage: "register [PLACE] [missing|wp|minor] [mode=N] [len=N]",
    about: "UFFDIO_REGISTER, MISSING unless said otherwise; says OK/mask of ioctls",
    compile: register,
  },
  unregister: {
    usage: "unregister [PLACE] [len=N]",
    about: "UFFDIO_UNREGISTER",
    compile: unregister,
  },
  wake: { usage: "wake PLACE [len=N]", about: "UFFDIO_WAKE", compile: wake },
  copy: {
    usage: "copy PLACE [from=PLACE] [dontwake|wp] [mode=N] [len=N]",
    about: "UFFDIO_COPY, from page 0 of s on unless said otherwise; says OK/bytes",
    compile: copy,
  },
  zeropage: {
    usage: "zeropage PLACE [dontwake] [mode=N] [len=N]",
    about: "UFFDIO_ZEROPAGE",
    compile: zeropage,
  },
  continue: {
    usage: "continue PLACE [dontwake|wp] [mode=N] [len=N]",
    about: "UFFDIO_CONTINUE: maps what the page cache has",
    compile: continuePages,
  },
  poison: {
    usage: "poison PLACE [dontwake] [mode=N] [len=N]",
    about: "UFFDIO_POISON",
    compile: poison,
  },
  move: {
    usage: "move PLACE from=PLACE [dontwake|holes] [mode=N] [len=N]",
    about: "UFFDIO_MOVE; holes is ALLOW_SRC_HOLES",
    compile: move,
  },
  writeprotect: {
    usage: "writeprotect PLACE [dontwake] [mode=N] [len=N]",
    about: "UFFDIO_WRITEPROTECT with WP; mode= gives all bits instead",
    compile: (words) => writeprotect(words, true),
  },
  unprotect: {
    usage: "unprotect PLACE [dontwake] [len=N]",
    about: "UFFDIO_WRITEPROTECT without WP",
    compile: (words) => writeprotect(words, false),
  },
};
