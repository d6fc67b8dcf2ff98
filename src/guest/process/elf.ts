// The smallest executable that Linux runs: an ELF header, two program headers, and the code behind them.
//
//   0          64         120        176
//   ├ Ehdr     ├ PT_LOAD  ├ GNU_STACK ├ code ...
//
// One segment, read and execute, holds the whole file; the second header only says that no stack of ours has to be
// executable. Structure: elf(5).

import { writeWord } from "../../abi/structs.ts";

const EHDR_BYTES = 64;
const PHDR_BYTES = 56;
/** Where the code stands in the file, and behind the address at which the file is mapped. */
export const CODE_OFFSET: number = EHDR_BYTES + 2 * PHDR_BYTES;

const ET_EXEC = 2;
const EM_X86_64 = 62;
const PT_LOAD = 1;
const PT_GNU_STACK = 0x6474e551;
const PF = { X: 1, W: 2, R: 4 } as const;

/** A static executable for x86-64 that is mapped at `address` and starts at `entry`. */
export function elfImage(code: Uint8Array, address: number, entry: number): Uint8Array {
  const image = new Uint8Array(CODE_OFFSET + code.byteLength);
  const view = new DataView(image.buffer);
  // 0x7f "ELF", 64 bits, little-endian, version 1.
  image.set([0x7f, 0x45, 0x4c, 0x46, 2, 1, 1]);
  view.setUint16(16, ET_EXEC, true);
  view.setUint16(18, EM_X86_64, true);
  view.setUint32(20, 1, true);
  writeWord(view, 24, entry);
  writeWord(view, 32, EHDR_BYTES);
  view.setUint16(52, EHDR_BYTES, true);
  view.setUint16(54, PHDR_BYTES, true);
  view.setUint16(56, 2, true);

  view.setUint32(EHDR_BYTES, PT_LOAD, true);
  view.setUint32(EHDR_BYTES + 4, PF.R | PF.X, true);
  writeWord(view, EHDR_BYTES + 16, address);
  writeWord(view, EHDR_BYTES + 24, address);
  writeWord(view, EHDR_BYTES + 32, image.byteLength);
  writeWord(view, EHDR_BYTES + 40, image.byteLength);
  writeWord(view, EHDR_BYTES + 48, 0x1000);

  view.setUint32(EHDR_BYTES + PHDR_BYTES, PT_GNU_STACK, true);
  view.setUint32(EHDR_BYTES + PHDR_BYTES + 4, PF.R | PF.W, true);
  view.setUint32(EHDR_BYTES + PHDR_BYTES + 48, 16, true);

  image.set(code, CODE_OFFSET);
  return image;
}
