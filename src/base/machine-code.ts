// A listing of machine code: bytes beside the instruction they stand for, and labels.
//
// Guests have to touch memory, take signals and fork without a runtime around them, and nothing may be compiled
// on the user's machine. Their code is a few dozen instructions, so it is written down as an assembler would list
// it; test/guest compares each listing with a disassembler where the machine has one.

import { assert } from "./errors.ts";

interface Fixup {
  /** Where the displacement stands. */
  readonly at: number;
  readonly size: 1 | 4;
  readonly label: string;
}

export class MachineCode {
  readonly #bytes: number[] = [];
  readonly #labels = new Map<string, number>();
  readonly #fixups: Fixup[] = [];
  readonly #listing: { readonly at: number; readonly text: string }[] = [];

  /** Offset of the next instruction. */
  get offset(): number {
    return this.#bytes.length;
  }

  /** One instruction: what it says, and its bytes. */
  op(text: string, ...bytes: readonly number[]): this {
    this.#listing.push({ at: this.offset, text });
    this.#bytes.push(...bytes);
    return this;
  }

  /** An instruction that ends in a 32-bit little-endian immediate or displacement. */
  op32(text: string, opcode: readonly number[], immediate: number): this {
    return this.op(text, ...opcode, ...littleEndian(immediate, 4));
  }

  /** An instruction that ends in a displacement to a label, relative to its end. Displacement of 1 or 4 bytes. */
  jump(text: string, opcode: readonly number[], label: string, size: 1 | 4 = 4): this {
    this.op(`${text} ${label}`, ...opcode, ...new Array<number>(size).fill(0));
    this.#fixups.push({ at: this.offset - size, size, label });
    return this;
  }

  label(name: string): this {
    assert(!this.#labels.has(name), `Label ${name} is defined twice`);
    this.#labels.set(name, this.offset);
    return this;
  }

  /** Offset of a label. */
  at(name: string): number {
    const offset = this.#labels.get(name);
    assert(offset !== undefined, `Label ${name} is not defined`);
    return offset;
  }

  align(unit: number, fill = 0x90): this {
    while (this.#bytes.length % unit !== 0) this.#bytes.push(fill);
    return this;
  }

  /** The finished code, all displacements filled in. */
  assemble(): Uint8Array {
    const code = Uint8Array.from(this.#bytes);
    for (const { at, size, label } of this.#fixups) {
      const distance = this.at(label) - (at + size);
      assert(size === 4 || (distance >= -128 && distance <= 127), `Label ${label} is out of reach`);
      code.set(littleEndian(distance, size), at);
    }
    return code;
  }

  /** Offset and text of every instruction, for the disassembler test. */
  get listing(): readonly { readonly at: number; readonly text: string }[] {
    return this.#listing;
  }
}

function littleEndian(value: number, size: number): number[] {
  return Array.from({ length: size }, (_, index) => (value >> (8 * index)) & 0xff);
}
