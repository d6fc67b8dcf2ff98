// The pager as its users see it: started with a userfaultfd and an image, it serves faults until it is closed.

import { MinorfaultError } from "../base/errors.ts";
import type { Pager, PagerOptions } from "./options.ts";

/** Starts serving the faults of a userfaultfd; resolves when the pager's thread waits for the first one. */
export async function startPager(options: PagerOptions): Promise<Pager> {
  throw new MinorfaultError("ERR_BUG", `Pager for descriptor ${options.descriptor} is not there yet`);
}
