export { type AttachMemoryOptions, attachMemory, growTo, type LazyWasmMemory } from "./attach-memory.ts";
export { type GlobalValues, readGlobals, writeGlobals } from "./globals.ts";
export { type SnapshotReport, snapshotMemory } from "./snapshot.ts";
export type { WasmExports, WasmGlobal, WasmMemory } from "./web-assembly.ts";
