// The userfaultfd system itself, in TypeScript: the executable specification, and a memory that loads itself.
// Imports nothing of Node: it runs in a browser.

export type { PageBytes, PageHandler } from "./page-service.ts";
export type { PagedMemoryOptions, PageRange } from "./paged-mapping.ts";
export { PagedMemory } from "./paged-memory.ts";
export type { SoftwareProcess } from "./process.ts";
export type { ProfileName } from "./profile.ts";
export { createSystem, SoftwareSystem, type SystemOptions } from "./system.ts";
export type { SoftwareThread } from "./thread.ts";
