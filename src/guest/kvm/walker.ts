// The guest's whole program: it walks over pages, reads the clock after every access, and adds up what it read.
//
//   esi → [ address, address, address, ... ]    the list in the control memory; each entry is replaced
//            │  ▲                               by the time at which its access was done
//     access ▼  └── clock / 16
//
//   ebx: sum of the words loaded;  ecx: accesses left
//
// It ends with HLT, which comes back to KVM_RUN. It uses no stack, no paging, no interrupts. LFENCE keeps the clock
// from being read before the access is done. There are as few instructions as can be, because some hypervisors
// (kvm_pvm) emulate each of them, at 0.3 µs; so the time of the access before is the beginning of the next one, and
// differences are taken by us (control.ts).

import { MachineCode } from "../machine-code.ts";
import { CLOCK_SHIFT, HEADER } from "./control.ts";

/**
 * What is done to the first word of each page: `load` adds it up; `read` leaves it beside the time, at the price of
 * another instruction; `store` writes the page's address there.
 */
export type Access = "load" | "read" | "store";

export interface Walker {
  readonly code: Uint8Array;
  /** Offset of the entry for each kind of access. */
  readonly entry: Readonly<Record<Access, number>>;
  readonly listing: MachineCode["listing"];
}

/**
 * Assembles the walker; `header` is the physical address of the control memory's header, `listBytes` the distance from
 * an entry of the list to the word that is read there.
 */
export function assembleWalker(header: number, listBytes: number): Walker {
  const code = new MachineCode();
  for (const access of ["load", "read", "store"] as const) {
    code.label(access);
    readClock(code);
    code
      .op32("mov [began],eax", [0xa3], header + HEADER.began)
      .label(`${access} next`)
      .op("lodsd", 0xad);
    if (access === "load") code.op("add ebx,[eax]", 0x03, 0x18);
    else if (access === "read") {
      code.op("mov ebx,[eax]", 0x8b, 0x18).op32("mov [esi+words],ebx", [0x89, 0x9e], listBytes - 4);
    } else code.op("mov [eax],eax", 0x89, 0x00);
    readClock(code);
    code
      .op("mov [esi-4],eax", 0x89, 0x46, 0xfc)
      .jump("loop", [0xe2], `${access} next`, 1)
      .op32("mov [sum],ebx", [0x89, 0x1d], header + HEADER.sum)
      .op("hlt", 0xf4);
  }
  return {
    code: code.assemble(),
    entry: { load: code.at("load"), read: code.at("read"), store: code.at("store") },
    listing: code.listing,
  };
}

/** eax = clock / 16: 32 bits of it last 26 seconds at 2.6 GHz, with a resolution of 6 ns. */
function readClock(code: MachineCode): void {
  code
    .op("lfence", 0x0f, 0xae, 0xe8)
    .op("rdtsc", 0x0f, 0x31)
    .op(`shrd eax,edx,${CLOCK_SHIFT}`, 0x0f, 0xac, 0xd0, CLOCK_SHIFT);
}
