// Memory for what is fetched, in slots of one length. JavaScript gets a view of a slot when it is used first: V8 takes views
// for garbage that is to come, and one of everything would make it collect at the very start of a guest.

import { viewMemory } from "../../linux/index.ts";

/** Gives the memory of a slot. */
export type SlotMemory = (slot: number) => Uint8Array;

/** SAFETY: the memory must stay mapped as long as this thread runs. */
export function slotsAt(address: number, slotBytes: number): SlotMemory {
  const views: (Uint8Array | undefined)[] = [];
  return (slot) => {
    views[slot] ??= new Uint8Array(viewMemory(address + slot * slotBytes, slotBytes));
    return views[slot];
  };
}
