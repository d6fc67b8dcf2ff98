// Huge pages for a test: the pool is made larger for as long as this process lives.

import { readFileSync, writeFileSync } from "node:fs";
import { skipUnlessUserfaultfd } from "../linux/host.ts";

const POOL = "/proc/sys/vm/nr_hugepages";

/** Makes the pool larger by so many pages of 2 MiB until this process ends. For `{ skip }`: why that can't be, or false. */
export function hugePages(count: number): string | false {
  if (skipUnlessUserfaultfd !== false) return skipUnlessUserfaultfd;
  try {
    const before = Number(readFileSync(POOL, "utf8"));
    const giveBack = () => writeFileSync(POOL, String(before));
    writeFileSync(POOL, String(before + count));
    const got = Number(readFileSync(POOL, "utf8")) - before;
    if (got < count) {
      giveBack();
      return `the system gave ${got} of ${count} huge pages`;
    }
    process.on("exit", giveBack);
    return false;
  } catch (error) {
    return `the pool of huge pages can't be changed: ${error instanceof Error ? error.message : error}`;
  }
}
