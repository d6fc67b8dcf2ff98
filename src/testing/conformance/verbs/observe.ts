// What can be seen of pages without touching them: pagemap, smaps, and the scan of written pages.

import { ERRNO } from "../../../abi/errno.ts";
import { PAGE_SIZE } from "../../../abi/memory.ts";
import { pageRegion, pmScanArg } from "../../../abi/structs.ts";
import { PAGE_IS, PAGEMAP_SCAN, PM_SCAN } from "../../../abi/userfaultfd.ts";
import type { Actor } from "../actor.ts";
import type { Arguments } from "../arguments.ts";
import { type Action, answer, type Token } from "../task.ts";
import { pageAddresses } from "../values.ts";
import type { Verbs } from "../verb.ts";

const PAGEMAP = "/proc/self/pagemap";
const ENTRY_BYTES = 8;
/** Bits of a pagemap entry (admin-guide/mm/pagemap.rst). */
const PRESENT = 1n << 63n;
const UFFD_WP = 1n << 57n;

function bits(words: Arguments, label: string, bit: bigint): Action {
  const place = words.place("a");
  words.end();
  return {
    kind: "look",
    look(actor) {
      const values = pageAddresses(place(actor)).map((address) => entry(actor, address));
      return [{ label, value: values.map((value) => Number((value & bit) !== 0n)).join("") }];
    },
  };
}

function entry(actor: Actor, address: number): bigint {
  const { scratch } = actor.process;
  const offset = Math.floor(address / PAGE_SIZE) * ENTRY_BYTES;
  actor.must("pread64", actor.file(PAGEMAP), scratch.address, ENTRY_BYTES, offset);
  return scratch.view.getBigUint64(0, true);
}

/** VmFlags of /proc/PID/smaps that tell a registration, and how cases write them. */
const MODES: readonly (readonly [string, string])[] = [
  ["um", "M"],
  ["uw", "W"],
  ["ui", "m"],
];

function registration(words: Arguments): Action {
  const place = words.place("a");
  words.end();
  return {
    kind: "look",
    look(actor) {
      const flags = vmFlags(actor.contents("/proc/self/smaps"), place(actor).address);
      const modes = MODES.filter(([flag]) => flags.includes(flag)).map(([, letter]) => letter);
      return [{ label: "reg", value: modes.join("") || "none" }];
    },
  };
}

/** VmFlags of the mapping that holds an address; none when nothing is mapped there. */
function vmFlags(smaps: string, address: bigint): string[] {
  let inside = false;
  for (const line of smaps.split("\n")) {
    const head = /^([0-9a-f]+)-([0-9a-f]+) /.exec(line);
    if (head !== null) inside = address >= BigInt(`0x${head[1]}`) && address < BigInt(`0x${head[2]}`);
    else if (inside && line.startsWith("VmFlags:")) return line.slice("VmFlags:".length).trim().split(/\s+/);
  }
  return [];
}

/** mincore(2) answers ENOMEM for pages that no mapping covers. */
function mapped(words: Arguments): Action {
  const place = words.place();
  words.end();
  return {
    kind: "look",
    look(actor) {
      const { address, byteLength } = place(actor);
      const vector = actor.process.scratch.address + actor.allocate(byteLength / PAGE_SIZE);
      const result = actor.process.call("mincore", address, byteLength, vector);
      if (result === -ERRNO.ENOMEM) return [{ value: "unmapped" }];
      return [result < 0 ? answer(result) : { value: "mapped" }];
    },
  };
}

const REGIONS_MAX = 16;

function scan(words: Arguments): Action {
  const protect = words.flag("protect");
  const check = words.flag("check");
  const place = words.place("a");
  words.end();
  const flags = (protect ? PM_SCAN.WP_MATCHING : 0n) | (check ? PM_SCAN.CHECK_WPASYNC : 0n);
  return {
    kind: "look",
    look(actor) {
      const { address, byteLength } = place(actor);
      const { scratch } = actor.process;
      const at = actor.allocate(pmScanArg.size);
      const vec = actor.allocate(REGIONS_MAX * pageRegion.size);
      pmScanArg.write(scratch.view, at, {
        size: pmScanArg.size,
        flags,
        start: address,
        end: address + BigInt(byteLength),
        walk_end: 0,
        vec: scratch.address + vec,
        vec_len: REGIONS_MAX,
        max_pages: 0,
        category_inverted: 0,
        category_mask: PAGE_IS.WRITTEN,
        category_anyof_mask: 0,
        return_mask: PAGE_IS.WRITTEN,
      });
      const found = actor.process.call("ioctl", actor.file(PAGEMAP), PAGEMAP_SCAN, scratch.address + at);
      if (found < 0) return [answer(found)];
      const regions = Array.from({ length: found }, (_, index) =>
        regionToken(actor, vec + index * pageRegion.size),
      );
      return [{ label: "n", value: String(found) }, ...regions];
    },
  };
}

/** "[2,3)=0x2": pages relative to their area, and their categories. */
function regionToken(actor: Actor, at: number): Token {
  const { start, end, categories } = pageRegion.read(actor.process.scratch.view, at);
  const base = BigInt(actor.areas.containing(Number(start))?.base ?? 0);
  const page = (address: bigint) => (address - base) / BigInt(PAGE_SIZE);
  return { value: `[${page(start)},${page(end)})=0x${categories.toString(16)}` };
}

export const OBSERVE_VERBS: Verbs = {
  res: {
    usage: "res [PLACE]",
    about: "says res= and the present bit of each page (pagemap)",
    compile: (words) => bits(words, "res", PRESENT),
  },
  wp: {
    usage: "wp [PLACE]",
    about: "says wp= and the uffd write-protect bit of each page (pagemap)",
    compile: (words) => bits(words, "wp", UFFD_WP),
  },
  reg: {
    usage: "reg [PLACE]",
    about:
      "says reg= and the modes registered at the place: M missing, W write-protect, m minor, or none (smaps)",
    compile: registration,
  },
  mapped: { usage: "mapped PLACE", about: "says mapped or unmapped", compile: mapped },
  scan: {
    usage: "scan [PLACE] [protect] [check]",
    about:
      "PAGEMAP_SCAN for written pages, protect is WP_MATCHING, check is CHECK_WPASYNC; says n=count and [a,b)=categories",
    compile: scan,
  },
};
