export { GuestProcess } from "./process.ts";
export { KernelSystem, type KernelSystemOptions } from "./system.ts";
export { GuestThread, type Walk } from "./thread.ts";
