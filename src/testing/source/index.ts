export { type Fate, type Faults, FaultySource } from "./faulty-source.ts";
export type { Law } from "./law.ts";
export { objectStoreLaws, type StoreKind, type StoreSubject } from "./object-store-laws.ts";
export { pageSourceLaws, type SourceSubject } from "./page-source-laws.ts";
export { VirtualTimers } from "./virtual-timers.ts";
