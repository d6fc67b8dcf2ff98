export { GuestProcess } from "./process.ts";
export { KernelSystem } from "./system.ts";
export { GuestThread, type Walk } from "./thread.ts";
