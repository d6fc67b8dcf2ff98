export { KVM, KVM_EXIT } from "./abi.ts";
export type { Walked } from "./control.ts";
export { CONTROL_ADDRESS, KvmMachine, type MachineOptions, RAM_BYTES_MAX, type RamPiece } from "./machine.ts";
export { createVm, type Vm } from "./open.ts";
export { type Access, assembleWalker, type Walker } from "./walker.ts";
