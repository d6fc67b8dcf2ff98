// Memory for what is fetched, in slots of one length. JavaScript gets a view of a slot when it is used first: V8 takes views
// for garbage that is to come, and one of everything would make it collect at the very start of a guest.
//
// Where units are read many at once, a view is of a block of slots: those that lie side by side in it can be read into as one.

import { viewMemory } from "../../linux/index.ts";

/** Gives the memory of a slot. */
export type SlotMemory = (slot: number) => Uint8Array;

export interface Blocks {
  /** How many slots there are in all. */
  readonly count: number;
  /** Slots of one block. */
  readonly blockSlots: number;
}

const NO_BLOCKS: Blocks = { count: Number.MAX_SAFE_INTEGER, blockSlots: 1 };

/** SAFETY: the memory must stay mapped as long as this thread runs. */
export function slotsAt(address: number, slotBytes: number, blocksOf: Blocks = NO_BLOCKS): SlotMemory {
  const { count, blockSlots } = blocksOf;
  const blocks: (ArrayBuffer | undefined)[] = [];
  const views: (Uint8Array | undefined)[] = [];
  return (slot) => {
    const block = Math.floor(slot / blockSlots);
    const first = block * blockSlots;
    const slots = Math.min(blockSlots, count - first);
    blocks[block] ??= viewMemory(address + first * slotBytes, slots * slotBytes);
    views[slot] ??= new Uint8Array(blocks[block], (slot - first) * slotBytes, slotBytes);
    return views[slot];
  };
}

/** Memory that lies side by side as one piece; undefined where it does not. */
export function joined(parts: readonly Uint8Array[]): Uint8Array | undefined {
  const [first] = parts;
  if (first === undefined) return undefined;
  let until = first.byteOffset;
  for (const { buffer, byteOffset, byteLength } of parts) {
    if (buffer !== first.buffer || byteOffset !== until) return undefined;
    until += byteLength;
  }
  return new Uint8Array(first.buffer, first.byteOffset, until - first.byteOffset);
}
