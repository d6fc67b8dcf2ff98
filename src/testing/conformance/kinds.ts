// The kinds of memory that a case can set up: `b = shmem 8 size=4`.

import { MAP, PAGE_SIZE, PROT } from "../../abi/memory.ts";
import type { Actor } from "./actor.ts";
import { type Area, sourcePages } from "./areas.ts";
import type { Arguments } from "./arguments.ts";
import { CaseProblem } from "./problem.ts";
import { protectionOf } from "./verbs/memory.ts";

export interface Kind {
  readonly usage: string;
  readonly about: string;
  readonly compile: (words: Arguments) => (actor: Actor) => Area;
}

const READ_WRITE = PROT.READ | PROT.WRITE;
/** An ordinary file that every Linux has and that is no memory object. */
const ORDINARY_FILE = "/etc/hostname";

function pageCount(words: Arguments): number {
  const word = words.require("a number of pages");
  if (!/^[1-9]\d{0,4}$/.test(word.text)) words.fail(word, "a number of pages");
  return Number(word.text);
}

function protection(words: Arguments): number {
  const word = words.option("prot");
  return word === undefined ? READ_WRITE : protectionOf(words, word);
}

function anon(words: Arguments) {
  const prot = protection(words);
  const pages = pageCount(words);
  return (actor: Actor) => actor.areas.anonymous(pages, prot);
}

function source(words: Arguments) {
  const byte = words.optionNumber("byte");
  const pages = pageCount(words);
  return (actor: Actor) => {
    const value = byte === undefined ? undefined : Number(byte(actor));
    return sourcePages(actor.areas, pages, value);
  };
}

function shared(words: Arguments) {
  const pages = pageCount(words);
  return (actor: Actor) => actor.areas.anonymous(pages, READ_WRITE, MAP.SHARED);
}

/** A memory object of its own: shared or private, whole or shorter than the mapping, writable or opened read-only. */
function shmem(words: Arguments) {
  const size = words.optionNumber("size");
  const isPrivate = words.flag("private");
  const readOnly = words.flag("readonly");
  const pages = pageCount(words);
  return (actor: Actor) => {
    const object = actor.must("memfd_create", actor.text("object"), 0);
    const objectPages = size === undefined ? pages : Number(size(actor));
    actor.must("ftruncate", object, objectPages * PAGE_SIZE);
    const fd = readOnly ? actor.file(`/proc/self/fd/${object}`) : object;
    const prot = readOnly ? PROT.READ : READ_WRITE;
    return actor.areas.mapped({ pages, fd, protection: prot, shared: !isPrivate });
  };
}

function alias(words: Arguments) {
  const word = words.require("the area to map again");
  if (!words.scope.areas.has(word.text)) words.fail(word, "an area that the case has set up");
  return (actor: Actor) => {
    const { fd, pages } = actor.area(word.text);
    if (fd === undefined) throw new CaseProblem(`Area ${word.text} has no object that can be mapped again`);
    return actor.areas.mapped({ pages, fd, protection: READ_WRITE, shared: true });
  };
}

function hugetlb(words: Arguments) {
  words.scope.needs.add("hugetlb");
  const pages = pageCount(words);
  return (actor: Actor) => actor.areas.huge(pages);
}

function thp(words: Arguments) {
  const pages = pageCount(words);
  return (actor: Actor) => actor.areas.transparentHuge(pages);
}

function file(words: Arguments) {
  const isShared = words.flag("shared");
  const at = words.optionPlace("at");
  return (actor: Actor) =>
    actor.areas.mapped({
      pages: 1,
      fd: actor.file(ORDINARY_FILE),
      protection: PROT.READ,
      shared: isShared,
      at: at === undefined ? undefined : Number(at(actor).address),
    });
}

function droppable(words: Arguments) {
  const pages = pageCount(words);
  return (actor: Actor) => {
    const base = actor.areas.place();
    const flags = MAP.DROPPABLE | MAP.ANONYMOUS | MAP.FIXED_NOREPLACE;
    actor.must("mmap", base, pages * PAGE_SIZE, READ_WRITE, flags, -1, 0);
    return { base, pages, pageBytes: PAGE_SIZE };
  };
}

function gap(words: Arguments) {
  const pages = pageCount(words);
  return (actor: Actor) => ({ base: actor.areas.place(), pages, pageBytes: PAGE_SIZE });
}

function vdso() {
  return (actor: Actor) => {
    const line = /^([0-9a-f]+)-\S+ .*\[vdso\]$/m.exec(actor.contents("/proc/self/maps"));
    if (line === null) throw new CaseProblem("This process has no vDSO");
    return { base: Number.parseInt(line[1]!, 16), pages: 1, pageBytes: PAGE_SIZE };
  };
}

export const KINDS: Readonly<Record<string, Kind>> = {
  anon: { usage: "anon PAGES [prot=PROT]", about: "private anonymous memory, untouched", compile: anon },
  source: {
    usage: "source PAGES [byte=N]",
    about: "private memory to copy from: page i is full of i+1, or every page of one byte",
    compile: source,
  },
  shared: { usage: "shared PAGES", about: "shared anonymous memory", compile: shared },
  shmem: {
    usage: "shmem PAGES [size=PAGES] [private] [readonly]",
    about:
      "a memory object (memfd) of that size, mapped shared or private; readonly maps a read-only descriptor",
    compile: shmem,
  },
  alias: {
    usage: "alias AREA",
    about: "a second, shared mapping of the area's object, never registered by itself",
    compile: alias,
  },
  hugetlb: { usage: "hugetlb PAGES", about: "private 2 MiB pages of the pool", compile: hugetlb },
  thp: {
    usage: "thp PAGES",
    about: "aligned anonymous memory with MADV_HUGEPAGE, counted in 4 KiB pages",
    compile: thp,
  },
  file: {
    usage: "file [shared] [at=PLACE]",
    about: "one page of an ordinary file, read-only, private or shared; at= puts it over another area",
    compile: file,
  },
  droppable: { usage: "droppable PAGES", about: "MAP_DROPPABLE memory", compile: droppable },
  gap: { usage: "gap PAGES", about: "addresses where nothing is mapped", compile: gap },
  vdso: { usage: "vdso", about: "the first page of the vDSO", compile: vdso },
};
