// The two calls that a pager makes for every fault, when nothing in them can wait: a read of messages into wired
// memory, and a fill whose argument stands in wired memory and whose source is resident.
//
// They do what uffd-file.ts and uffd-ioctl.ts do, with the same parts but without a generator and without
// allocating. Whatever is not of that kind is left to those: the answer is then undefined, and nothing was done.

import { ERRNO } from "../../abi/errno.ts";
import { O } from "../../abi/memory.ts";
import { UFFD_MSG_SIZE } from "../../abi/message.ts";
import { writeWord } from "../../abi/structs.ts";
import { UFFDIO } from "../../abi/userfaultfd.ts";
import { FILL, fill } from "./fill.ts";
import { FILL_SHAPES, FillCall } from "./fill-call.ts";
import type { SoftwareProcess } from "./process.ts";
import { UffdFile } from "./uffd-file.ts";
import type { Vma } from "./vma.ts";

/** The wired memory that holds a whole range. */
function wiredFor(process: SoftwareProcess, address: number, byteLength: number): Vma | undefined {
  const vma = process.space.vmas.at(address);
  if (vma?.wiredView === undefined || !vma.writable || address + byteLength > vma.end) return undefined;
  return vma;
}

function kindOf(request: number): number {
  if (request === UFFDIO.COPY) return FILL.COPY;
  if (request === UFFDIO.ZEROPAGE) return FILL.ZERO;
  if (request === UFFDIO.CONTINUE) return FILL.CONTINUE;
  return request === UFFDIO.POISON ? FILL.POISON : -1;
}

export class FastCalls {
  readonly #process: SoftwareProcess;
  #call: FillCall | undefined;

  constructor(process: SoftwareProcess) {
    this.#process = process;
  }

  /** ioctl(2): the answer, or undefined when it is to be made the ordinary way. */
  ioctl(fd: number, request: number, address: number): number | undefined {
    const kind = kindOf(request);
    const file = this.#process.descriptors.get(fd);
    if (kind < 0 || !(file instanceof UffdFile)) return undefined;
    const { ctx } = file;
    if (!ctx.enabled || ctx.changing > 0 || !ctx.space.profile.ioctls.has(request)) return undefined;
    const { words, field } = FILL_SHAPES[kind]!;
    const vma = wiredFor(this.#process, address, (words + 1) * 8);
    if (vma === undefined) return undefined;
    const view = vma.wiredView!;
    const at = address - vma.start;
    this.#call ??= new FillCall(ctx, this.#process.space);
    const call = this.#call;
    const refused = call.prepare(ctx, kind, view, at);
    if (refused !== 0) return refused;
    if (kind === FILL.COPY && !call.isResident(call.sourceAddress, call.byteLength)) return undefined;
    fill(call, call);
    writeWord(view, at + field, call.output);
    return call.finish();
  }

  /** read(2): the answer, or undefined when it is to be made the ordinary way. */
  read(fd: number, address: number, byteLength: number): number | undefined {
    const file = this.#process.descriptors.get(fd);
    if (!(file instanceof UffdFile) || !file.ctx.enabled || byteLength < UFFD_MSG_SIZE) return undefined;
    if (!file.ctx.readable) return (file.flags & O.NONBLOCK) !== 0 ? -ERRNO.EAGAIN : undefined;
    const vma = wiredFor(this.#process, address, byteLength);
    if (vma === undefined) return undefined;
    const at = address - vma.start;
    let done = 0;
    while (done + UFFD_MSG_SIZE <= byteLength) {
      const taken = file.takeNow(this.#process, vma.wiredView!, at + done);
      if (taken < 0) return done > 0 ? done : taken;
      done += UFFD_MSG_SIZE;
    }
    return done;
  }
}
