// The entry of the process that serves, or would. Its threads load what they need while the main thread does (pager-main.ts):
// where nobody else is left, guests wait for all of that. They rehearse with the guests' images, when those are known.

import { prepareThreads } from "../pager/spare-threads.ts";
import { shareCacheTotals } from "../source/cache-totals.ts";

// Before there are threads that read.
shareCacheTotals();
// What goes wrong with them shows when they are needed.
prepareThreads(1, { rehearses: false }).catch(() => undefined);
await import("./pager-main.ts");
