// The text files of /proc/self that tell about userfaultfd: fdinfo and smaps.

import { PROT } from "../../abi/memory.ts";
import type { AddressSpace } from "./address-space.ts";
import { OpenFile, seekIn } from "./open-file.ts";
import type { SoftwareProcess } from "./process.ts";
import type { Blocking } from "./scheduler.ts";
import type { SoftwareThread } from "./thread.ts";
import type { UserVector } from "./user-vector.ts";
import { VMA, type Vma } from "./vma.ts";

/** A file whose text is made when it is read from its beginning. */
export class TextFile extends OpenFile {
  readonly #make: () => string;
  #bytes = new Uint8Array(0);

  constructor(make: () => string) {
    super(0);
    this.#make = make;
  }

  override get pollable(): boolean {
    return false;
  }

  override *read(thread: SoftwareThread, vector: UserVector): Blocking<number> {
    const done = yield* this.readAt(thread, vector, this.position);
    if (done > 0) this.position += done;
    return done;
  }

  override *readAt(thread: SoftwareThread, vector: UserVector, position: number): Blocking<number> {
    if (position === 0) this.#bytes = new TextEncoder().encode(this.#make());
    const rest = this.#bytes.subarray(position, position + vector.remaining);
    const done = yield* vector.put(thread, rest);
    return done === 0 && rest.length > 0 ? -14 : done;
  }

  override seek(offset: number, whence: number): number {
    return seekIn(this, this.#bytes.length, offset, whence);
  }
}

/** /proc/PID/fdinfo/N, or undefined when the process has no such descriptor. */
export function fdinfoFile(process: SoftwareProcess, fd: number): TextFile | undefined {
  const file = process.descriptors.get(fd);
  if (file === undefined) return undefined;
  return new TextFile(() => {
    const closeOnExec = process.descriptors.isCloseOnExec(fd) ? 0o2000000 : 0;
    const flags = (file.flags | closeOnExec).toString(8).padStart(7, "0");
    return `pos:\t${file.position}\nflags:\t${flags}\nmnt_id:\t16\nino:\t1\n${file.info}`;
  });
}

/** /proc/PID/maps: a line for each VMA. */
export function mapsFile(space: AddressSpace): TextFile {
  return new TextFile(() => [...space.vmas].map((vma) => `${describeRange(vma)}\n`).join(""));
}

/** /proc/PID/smaps: of each VMA its range, its page size and its flags. */
export function smapsFile(space: AddressSpace): TextFile {
  return new TextFile(() => [...space.vmas].map(describeVma).join(""));
}

function describeRange(vma: Vma): string {
  const offset = vma.anonymous ? 0 : vma.pageOffset * 4096;
  const range = `${vma.start.toString(16)}-${vma.end.toString(16)}`;
  const place = `${offset.toString(16).padStart(8, "0")} 00:00 ${vma.object === undefined ? 0 : 1}`;
  const name = vma.object === undefined ? vma.name : `/${vma.object.name} (deleted)`;
  return `${range} ${permissions(vma)} ${place} ${name === "" ? "" : `                  ${name}`}`;
}

function describeVma(vma: Vma): string {
  const kilobytes = (vma.end - vma.start) / 1024;
  const pageSize = vma.huge ? 2048 : 4;
  return [
    describeRange(vma),
    `Size:           ${String(kilobytes).padStart(8)} kB`,
    `KernelPageSize: ${String(pageSize).padStart(8)} kB`,
    `MMUPageSize:    ${String(pageSize).padStart(8)} kB`,
    `VmFlags: ${vmFlags(vma).join(" ")} `,
    "",
  ].join("\n");
}

function permissions(vma: Vma): string {
  const letter = (bit: number, name: string): string => ((vma.prot & bit) !== 0 ? name : "-");
  const shared = vma.shared ? "s" : "p";
  return letter(PROT.READ, "r") + letter(PROT.WRITE, "w") + letter(PROT.EXEC, "x") + shared;
}

function vmFlags(vma: Vma): string[] {
  const flags: [boolean, string][] = [
    [(vma.prot & PROT.READ) !== 0, "rd"],
    [(vma.prot & PROT.WRITE) !== 0, "wr"],
    [(vma.prot & PROT.EXEC) !== 0, "ex"],
    [vma.shared, "sh"],
    [true, "mr"],
    [vma.mayWrite, "mw"],
    [true, "me"],
    [vma.shared, "ms"],
    [vma.has(VMA.LOCKED), "lo"],
    [vma.has(VMA.SEQUENTIAL), "sr"],
    [vma.has(VMA.RANDOM), "rr"],
    [vma.has(VMA.DONT_FORK), "dc"],
    [vma.has(VMA.ACCOUNT), "ac"],
    [vma.has(VMA.NO_RESERVE), "nr"],
    [vma.huge, "ht"],
    [vma.has(VMA.WIPE_ON_FORK), "wf"],
    [vma.has(VMA.DONT_DUMP), "dd"],
    [vma.has(VMA.HUGE_ADVICE), "hg"],
    [vma.has(VMA.NO_HUGE_ADVICE), "nh"],
    [vma.has(VMA.MERGEABLE), "mg"],
    [vma.missing, "um"],
    [vma.writeProtect, "uw"],
    [vma.minor, "ui"],
  ];
  return flags.filter(([holds]) => holds).map(([, name]) => name);
}
