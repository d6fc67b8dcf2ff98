// The thread that touches pages in the pager's self-test, and does nothing else. See self-test.ts.

import { workerData } from "node:worker_threads";
import { PAGE_SIZE } from "../abi/memory.ts";
import { local, threadId } from "../linux/index.ts";
import { native } from "../linux/native.ts";
import { STAGE_BYTES, TOUCHER, TOUCHER_END } from "./self-test.ts";

const words = workerData as Int32Array;

words[TOUCHER.TID] = threadId(local);
Atomics.notify(words, TOUCHER.TID);

for (let seen = 0; ; ) {
  Atomics.wait(words, TOUCHER.GO, seen);
  seen = Atomics.load(words, TOUCHER.GO);
  const count = words[TOUCHER.COUNT]!;
  if (count === TOUCHER_END) break;
  const address = words[TOUCHER.ADDRESS_HIGH]! * 2 ** 32 + (words[TOUCHER.ADDRESS_LOW]! >>> 0);
  // SAFETY: the stage stays mapped until the self-test has ended well, which waits for DONE; else it stays for good.
  touch(new Uint8Array(native().view(address, STAGE_BYTES)), count);
  Atomics.store(words, TOUCHER.DONE, seen);
  Atomics.notify(words, TOUCHER.DONE);
}

function touch(bytes: Uint8Array, count: number): void {
  let sum = 0;
  for (let page = 0; page < count; page++) {
    const before = performance.now();
    sum += bytes[page * PAGE_SIZE]!;
    words[TOUCHER.TIMES + page] = (performance.now() - before) * 1e6;
  }
  if (sum !== 0) throw new Error("The stage holds zeros");
}
