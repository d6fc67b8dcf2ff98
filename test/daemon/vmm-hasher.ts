// A thread of the VMM that hashes guest memory, page by page: as Firecracker's devices read it, from user space, and
// waiting at what is missing. So a guest checks every byte of its memory itself.
//
// The hash takes one 32-bit word after the other: h = rotate((h ^ word) * PRIME, 13). Each step can be undone, so a page
// in which one word differs never has the same hash.

import { MAP, PAGE_SIZE, PROT } from "../../src/abi/memory.ts";
import { writeWord } from "../../src/abi/structs.ts";
import type { Scratch } from "../../src/abi/system.ts";
import { MachineCode } from "../../src/base/machine-code.ts";
import type { GuestProcess, GuestThread } from "../../src/guest/process/index.ts";
import { check, memfd, mmap } from "../../src/linux/index.ts";

const SEED = 0x811c_9dc5;
const PRIME = 0x0100_0193;
const WORDS = PAGE_SIZE / 4;

/** The same hash here. `words`: those of one page. */
export function hashWords(words: Uint32Array): number {
  let hash = SEED | 0;
  for (let index = 0; index < WORDS; index++) {
    hash = Math.imul(hash ^ words[index]!, PRIME);
    hash = (hash << 13) | (hash >>> 19);
  }
  return hash >>> 0;
}

/** The parameters stand in memory that we share with the process, at `parameters`: list, count, where hashes go. */
export function assembleHasher(parameters: number): MachineCode {
  const code = new MachineCode();
  const address = [...new Uint8Array(new BigUint64Array([BigInt(parameters)]).buffer)];
  code.op("movabs rsi, parameters", 0x48, 0xbe, ...address);
  code.op("mov rdi, [rsi]", 0x48, 0x8b, 0x3e).op("mov rcx, [rsi+8]", 0x48, 0x8b, 0x4e, 8);
  code.op("mov rdx, [rsi+16]", 0x48, 0x8b, 0x56, 16);
  code.label("page").op("mov rbx, [rdi]", 0x48, 0x8b, 0x1f);
  code.op32(`mov r8d, ${WORDS}`, [0x41, 0xb8], WORDS).op32("mov eax, SEED", [0xb8], SEED);
  code.label("word").op("xor eax, [rbx]", 0x33, 0x03).op32("imul eax, eax, PRIME", [0x69, 0xc0], PRIME);
  code.op("rol eax, 13", 0xc1, 0xc0, 13).op("add rbx, 4", 0x48, 0x83, 0xc3, 4);
  code.op("dec r8d", 0x41, 0xff, 0xc8).jump("jne", [0x75], "word", 1);
  code.op("mov [rdx], eax", 0x89, 0x02).op("add rdx, 4", 0x48, 0x83, 0xc2, 4);
  code.op("add rdi, 8", 0x48, 0x83, 0xc7, 8).op("dec rcx", 0x48, 0xff, 0xc9);
  return code.jump("jne", [0x75], "page", 1).op("ret", 0xc3);
}

const PARAMETERS_BYTES = PAGE_SIZE;

export class Hasher {
  readonly thread: GuestThread;
  readonly #code: number;
  readonly #memory: Scratch;
  readonly #pagesMax: number;

  constructor(process: GuestProcess, pagesMax: number) {
    this.#pagesMax = pagesMax;
    this.#memory = process.share(PARAMETERS_BYTES + pagesMax * 12);
    const code = assembleHasher(this.#memory.address).assemble();
    const fd = memfd(process, "hasher", PAGE_SIZE);
    process.scratch.bytes.set(code);
    check(process.call("pwrite64", fd, process.scratch.address, code.byteLength, 0), "pwrite64");
    this.#code = mmap(process, PAGE_SIZE, { fd, flags: MAP.PRIVATE, protection: PROT.READ | PROT.EXEC });
    process.call("close", fd);
    this.thread = process.spawnThread();
  }

  /** Begins to hash the pages at these addresses; the thread tells when it is done. */
  start(addresses: readonly number[]): void {
    if (addresses.length < 1 || addresses.length > this.#pagesMax) {
      throw new RangeError(`1 to ${this.#pagesMax} pages are hashed at a time, not ${addresses.length}`);
    }
    const { view, address } = this.#memory;
    const list = PARAMETERS_BYTES;
    writeWord(view, 0, address + list);
    writeWord(view, 8, addresses.length);
    writeWord(view, 16, address + list + 8 * this.#pagesMax);
    for (const [index, page] of addresses.entries()) writeWord(view, list + 8 * index, page);
    this.thread.start({ kind: "execute", address: this.#code });
  }

  /** The hashes of the pages that were asked for last. */
  hashes(count: number): Uint32Array {
    const { bytes } = this.#memory;
    return new Uint32Array(
      bytes.buffer,
      bytes.byteOffset + PARAMETERS_BYTES + 8 * this.#pagesMax,
      count,
    ).slice();
  }
}
