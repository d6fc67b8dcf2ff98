export { attach } from "./attach.ts";
export { open } from "./open.ts";
export type * from "./options.ts";
export { type StoredWorkingSet, type StoreWorkingSetOptions, storeWorkingSet } from "./working-set.ts";
