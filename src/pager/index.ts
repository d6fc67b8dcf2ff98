export { BUDGET_BYTES_MIN } from "./evictor.ts";
export { openPagerHost, startPager } from "./host.ts";
export * from "./options.ts";
export { prepareThreads } from "./spare-threads.ts";
export { pagerStateBytes } from "./state.ts";
