// Steps that touch memory or change address spaces: accesses, mmap and its family, fork, page map scans.

import { MADV, MAP, MREMAP, PAGE_SIZE, PROT } from "../../src/abi/memory.ts";
import { pageRegion, pmScanArg } from "../../src/abi/structs.ts";
import type { Operation, SyscallName } from "../../src/abi/system.ts";
import { PAGEMAP_SCAN } from "../../src/abi/userfaultfd.ts";
import { HUGE_AREA, isOfObject, mapFlags, placeName } from "./arena.ts";
import { type Actor, resultText, THREADS } from "./host.ts";
import { areaOf, byteAt, span } from "./places.ts";
import { refuseChange, sourceWaits } from "./rules.ts";
import { actorOf, flagsText, type Resolved, type Scene, Skip } from "./scene.ts";
import type { Place, Step } from "./steps.ts";

type Of<Kind extends Step["kind"]> = Extract<Step, { kind: Kind }>;

const EXTRA = { " POPULATE": MAP.POPULATE, " LOCKED": 0x2000, " NORESERVE": MAP.NORESERVE };
const PROTECTION = { READ: PROT.READ, WRITE: PROT.WRITE, EXEC: PROT.EXEC };

/** Each thread of each process has its own bytes in every page, so that the order of two accesses does not show; the first belong to loads that straddle two pages. */
const OWN_BYTES = 64;
const IOV_BYTES = 16;
/** FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE. */
const PUNCH_HOLE = 3;

export function access(scene: Scene, step: Of<"access">): Resolved {
  const actor = actorOf(scene, step);
  const thread = actor.idle(step.thread);
  if (thread === undefined) return new Skip("no thread is idle");
  const area = areaOf(step.area);
  const writes = step.access === "store" || step.access === "add" || step.access === "read(2)";
  if (writes && sourceWaits(scene.host, scene.order, area.index)) {
    return new Skip("a COPY waits to take its bytes from there");
  }
  const own = (1 + actor.index * THREADS + thread) * OWN_BYTES + step.offset * 8;
  // The last choice of an 8-byte load straddles the end of the page.
  const offset = step.access === "load8" && step.offset === 3 ? area.pageBytes - 4 : own;
  const address = byteAt(area, step.page, offset);
  return {
    name: step.access,
    text: `${step.access} ${placeName(address)} by thread ${thread}`,
    actor: actor.index,
    run: (host, actor) => {
      const finish = (value: number) => `${step.access} ${value < 0 ? resultText(value) : value}`;
      const byItself = !step.access.endsWith("(2)");
      const pending = { thread, family: "access", place: area.index, writes, byItself, finish } as const;
      host.begin(actor, operation(actor, step.access, address, thread), pending);
    },
  };
}

function operation(actor: Actor, kind: Of<"access">["access"], address: number, thread: number): Operation {
  const value = actor.index * THREADS + thread + 101;
  switch (kind) {
    case "load":
      return { kind: "load", address, size: 1 };
    case "load8":
      return { kind: "load", address, size: 8 };
    case "store":
    case "add":
      return { kind, address, value };
    case "execute":
      return { kind, address };
    case "read(2)":
      return { kind: "call", name: "read", args: [actor.files.zero, address, 16] };
    case "write(2)":
      return { kind: "call", name: "write", args: [actor.files.sinks[thread] ?? -1, address, 16] };
    default:
      return kind satisfies never;
  }
}

/** A call that changes an address space, by a thread, since it may have to wait for its event to be read. */
function change(
  scene: Scene,
  step: Step,
  text: string,
  name: SyscallName,
  args: (actor: Actor) => Operation & { kind: "call" },
  family: "space" | "access" = "space",
): Resolved {
  const actor = actorOf(scene, step);
  const refusal = family === "space" ? refuseChange(scene.host) : undefined;
  if (refusal !== undefined) return new Skip(refusal);
  const thread = actor.idle(step.thread);
  if (thread === undefined) return new Skip("no thread is idle");
  return {
    name: text.startsWith("madvise") ? (text.split(" ").slice(0, 2).join(" ") ?? text) : name,
    text: `${text} by thread ${thread}`,
    actor: actor.index,
    run: (host, actor) => {
      const finish = (value: number) => `${name} ${value > 0 ? placeName(value) : resultText(value)}`;
      // Locked memory is made resident where it is mapped, and where it grows.
      const bringsPages = name === "mmap" || name === "mremap";
      host.begin(actor, args(actor), { thread, family, bringsPages, finish });
    },
  };
}

const call = (name: SyscallName, ...args: readonly (number | bigint)[]) =>
  ({ kind: "call", name, args }) as const;

function hugeIsMissing(scene: Scene, place: Place): boolean {
  return place.area === HUGE_AREA && !scene.huge;
}

export function mmap(scene: Scene, step: Of<"mmap">): Resolved {
  if (hugeIsMissing(scene, step.place)) return new Skip("the program has no huge pages");
  const { area, page, start, length, text } = span(step.place);
  const fixed = (step.over ? MAP.FIXED : MAP.FIXED_NOREPLACE) | step.extra;
  const protection = flagsText(step.protection, PROTECTION);
  return change(
    scene,
    step,
    `mmap ${text} ${area.kind} ${protection}${step.over ? " over" : ""}${flagsText(step.extra, EXTRA).replace(/^0$/, "")}`,
    "mmap",
    (actor) => {
      const fd = isOfObject(area) ? actor.files.object : -1;
      const offset = isOfObject(area) ? page * area.pageBytes : 0;
      return call("mmap", start, length, step.protection, mapFlags(area) | fixed, fd, offset);
    },
  );
}

export function munmap(scene: Scene, step: Of<"munmap">): Resolved {
  const { start, length, text } = span(step.place);
  return change(scene, step, `munmap ${text}`, "munmap", () => call("munmap", start, length));
}

export function mprotect(scene: Scene, step: Of<"mprotect">): Resolved {
  const { start, length, text } = span(step.place);
  const what = `mprotect ${text} ${flagsText(step.protection, PROTECTION)}`;
  return change(scene, step, what, "mprotect", () => call("mprotect", start, length, step.protection));
}

export function madvise(scene: Scene, step: Of<"madvise">): Resolved {
  const { start, length, text, area } = span(step.place);
  // Linux 6.18 goes round for ever in GUARD_INSTALL over the mark of an empty page of an object.
  if (step.advice === "GUARD_INSTALL" && (isOfObject(area) || scene.order.moved)) {
    return new Skip("guards are for private memory");
  }
  const advice = ({ ...MADV, WIPEONFORK: 18, KEEPONFORK: 19 } as Record<string, number>)[step.advice] ?? -1;
  const family = step.advice.startsWith("POPULATE") ? "access" : "space";
  return change(
    scene,
    step,
    `madvise ${step.advice} ${text}`,
    "madvise",
    () => call("madvise", start, length, advice),
    family,
  );
}

export function mremap(scene: Scene, step: Of<"mremap">): Resolved {
  const { area, page, start, length, text } = span(step.place);
  if (area.index === HUGE_AREA) return new Skip("huge pages stay where they are");
  const target = step.to === undefined ? undefined : areaOf(step.to.area);
  const room = target === undefined ? area.pages - page : target.pages - (step.to?.page ?? 0);
  const newCount = Math.min(step.newCount, room);
  const newLength = step.dontUnmap && target !== undefined ? length : newCount * area.pageBytes;
  const to = target === undefined ? 0 : byteAt(target, step.to?.page ?? 0, 0);
  const flags =
    target === undefined ? 0 : MREMAP.MAYMOVE | MREMAP.FIXED | (step.dontUnmap ? MREMAP.DONTUNMAP : 0);
  const what = `mremap ${text} to ${target === undefined ? "" : `${placeName(to)}, `}${newCount} pages${
    step.dontUnmap && target !== undefined ? " DONTUNMAP" : ""
  }`;
  if (isOfObject(area)) scene.order.moved = true;
  return change(scene, step, what, "mremap", () => call("mremap", start, length, newLength, flags, to));
}

/** It changes the memory, and touches it. */
export function mlock(scene: Scene, step: Of<"mlock" | "munlock">): Resolved {
  const refusal = refuseChange(scene.host);
  if (refusal !== undefined) return new Skip(refusal);
  const { start, length, text } = span(step.place);
  const { kind } = step;
  return change(scene, step, `${kind} ${text}`, kind, () => call(kind, start, length), "access");
}

/** Reads or writes the memory of a process, perhaps another, by a system call. */
export function vm(scene: Scene, step: Of<"vm">): Resolved {
  const actor = actorOf(scene, step);
  const thread = actor.idle(step.thread);
  if (thread === undefined) return new Skip("no thread is idle");
  const { living } = scene.host;
  const other = living[step.other % living.length]?.index ?? 0;
  const area = areaOf(step.area);
  if (step.write && sourceWaits(scene.host, scene.order, area.index)) {
    return new Skip("a COPY waits to take its bytes from there");
  }
  const place = byteAt(area, step.page, (1 + actor.index * THREADS + thread) * OWN_BYTES);
  const name = step.write ? "process_vm_writev" : "process_vm_readv";
  return {
    name,
    text: `${name} of ${other} ${placeName(place)} by thread ${thread}`,
    actor: actor.index,
    run: (host, actor) => {
      const { at, address } = actor.scratch(thread);
      // Two struct iovec: ours, theirs. Then the bytes.
      for (const [offset, word] of [address + 64, IOV_BYTES, place, IOV_BYTES].entries()) {
        actor.view.setBigUint64(at + 8 * offset, BigInt(word), true);
      }
      for (let byte = 0; byte < IOV_BYTES; byte++) actor.view.setUint8(at + 64 + byte, 200 + thread);
      const finish = (value: number) => {
        const bytes = actor.process.scratch.bytes.subarray(at + 64, at + 64 + IOV_BYTES);
        return `vm ${resultText(value)} ${step.write ? "" : bytes.join(",")}`;
      };
      const pid = host.actors[other]?.process.pid ?? 0;
      const pending = {
        thread,
        family: "access",
        place: area.index,
        writes: step.write,
        remote: other,
        finish,
      } as const;
      host.begin(actor, call(name, pid, address, 1, address + 16, 1, 0), pending);
    },
  };
}

/** Changes the object behind the shared areas: its length, or a hole in it. */
export function object(scene: Scene, step: Of<"object">): Resolved {
  const actor = actorOf(scene, step);
  const thread = actor.idle(step.thread);
  if (thread === undefined) return new Skip("no thread is idle");
  const { how, page, count } = step;
  const offset = page * PAGE_SIZE;
  return {
    name: how === "truncate" ? "ftruncate" : "fallocate",
    text:
      how === "truncate"
        ? `ftruncate object to ${page} pages`
        : `punch a hole in the object [${page},${page + count})`,
    actor: actor.index,
    run: (host, actor) => {
      const fd = actor.files.object;
      const operation =
        how === "truncate"
          ? call("ftruncate", fd, offset)
          : call("fallocate", fd, PUNCH_HOLE, offset, count * PAGE_SIZE);
      const finish = (value: number) => `${how} ${resultText(value)}`;
      host.begin(actor, operation, { thread, family: "access", finish });
    },
  };
}

export function mincore(scene: Scene, step: Of<"mincore">): Resolved {
  const actor = actorOf(scene, step);
  const { start, length, text, count, area } = span(step.place);
  if (area.index === HUGE_AREA) return new Skip("small pages are enough");
  return {
    name: "mincore",
    text: `mincore ${text}`,
    actor: actor.index,
    run: (host, actor) => {
      const { at, address } = actor.scratch(THREADS);
      const bytes = actor.process.scratch.bytes.subarray(at, at + count + 1).fill(0);
      const result = actor.process.call("mincore", start, length, address);
      host.say(`mincore ${resultText(result)} ${result === 0 ? bytes.join("") : ""}`);
    },
  };
}

export function scan(scene: Scene, step: Of<"scan">): Resolved {
  const actor = actorOf(scene, step);
  const { start, length, text } = span(step.place);
  if (typeof start !== "number" || typeof length !== "number") return new Skip("a scan walks what is there");
  const { flags, categories, vector, pagesMax } = step;
  return {
    name: "PAGEMAP_SCAN",
    text: `PAGEMAP_SCAN ${text} flags ${flags} categories ${categories} vector ${vector} at most ${pagesMax}`,
    actor: actor.index,
    run: (host, actor) => {
      const { at, address } = actor.scratch(THREADS);
      pmScanArg.write(actor.view, at, {
        size: pmScanArg.size,
        flags,
        start,
        end: start + length,
        walk_end: 0,
        vec: vector === 0 ? 0 : address + 0x100,
        vec_len: vector,
        max_pages: pagesMax,
        category_inverted: 0,
        category_mask: categories,
        category_anyof_mask: 0,
        return_mask: vector === 0 ? 0 : 0x7f,
      });
      const result = actor.process.ioctl(actor.files.pagemap, PAGEMAP_SCAN, address);
      const regions = Array.from({ length: Math.max(0, vector === 0 ? 0 : result) }, (_, index) => {
        const region = pageRegion.read(actor.view, at + 0x100 + index * pageRegion.size);
        return `[${placeName(region.start)}, ${placeName(region.end)})=${region.categories.toString(16)}`;
      });
      const { walk_end } = pmScanArg.read(actor.view, at);
      const walked = walk_end === 0n ? "nowhere" : placeName(walk_end);
      host.say(`scan ${resultText(result)} to ${walked} ${regions.join(" ")}`);
    },
  };
}
