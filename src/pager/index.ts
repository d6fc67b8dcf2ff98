export { BUDGET_BYTES_MIN } from "./evictor.ts";
export * from "./options.ts";
export * from "./pager.ts";
export { prepareThreads } from "./spare-threads.ts";
export { pagerStateBytes } from "./state.ts";
