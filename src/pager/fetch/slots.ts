// Memory for what is fetched, in slots of one length. JavaScript gets a view of a slot when it is used first: V8 takes views
// for garbage that is to come, and one of everything would make it collect at the very start of a guest.

import { viewMemory } from "../../linux/index.ts";

/** Gives the memory of a slot, or of so many that lie side by side. */
export type SlotMemory = (slot: number, count?: number) => Uint8Array;

/**
 * `slots`: how many there are, where more than one is to be had at once.
 * SAFETY: the memory must stay mapped as long as this thread runs.
 */
export function slotsAt(address: number, slotBytes: number, slots = 1): SlotMemory {
  const views: (Uint8Array | undefined)[] = [];
  let whole: Uint8Array | undefined;
  return (slot, count = 1) => {
    if (count > 1) {
      whole ??= new Uint8Array(viewMemory(address, slots * slotBytes));
      return whole.subarray(slot * slotBytes, (slot + count) * slotBytes);
    }
    views[slot] ??= new Uint8Array(viewMemory(address + slot * slotBytes, slotBytes));
    return views[slot];
  };
}
