// What a spare does before its turn comes: it takes over a guest that is nothing but a little memory of its own, of every
// image that is warm. So the code has been compiled, each image's thread has fetched, and the first real guest does not
// wait for any of that.
//
// The memory is asked for by madvise(MADV_POPULATE_READ), which fails where a page can't be had; a touch would be SIGBUS.

import { MADV, PAGE_SIZE } from "../abi/memory.ts";
import { local, mapMemory, memfd, pidfdOpen } from "../linux/index.ts";
import type { Pager, PagerHost } from "../pager/index.ts";
import { openUserfaultfd } from "../uffd/index.ts";
import type { ImageConfig } from "./config.ts";
import { Guest, stateBytes } from "./guest.ts";
import { closeAll } from "./ledger.ts";
import type { Entry } from "./link.ts";
import type { GuestNote } from "./texts.ts";

const BYTES = 16 * PAGE_SIZE;
const ROUNDS = 3;
/** How long a page may take. The thread that asks for it does nothing else meanwhile, and so is lost to us if none comes. */
const DEADLINE_MS = 100;

/**
 * Where this process may have no userfaultfd, the first takeover is a few milliseconds slower: that is all. `look` is
 * shown the pager, and answers whether that was enough.
 */
export async function rehearse(
  host: PagerHost,
  image: ImageConfig,
  imageBytes: number,
  look: (pager: Pager) => boolean,
): Promise<void> {
  for (let round = 0; round < ROUNDS; round++) {
    try {
      if (look(await takeOverNothing(host, image, imageBytes))) return;
    } catch {
      // The next round may be luckier.
    }
  }
}

async function takeOverNothing(host: PagerHost, image: ImageConfig, imageBytes: number): Promise<Pager> {
  const byteLength = Math.min(BYTES, Math.ceil(imageBytes / PAGE_SIZE) * PAGE_SIZE);
  const uffd = openUserfaultfd("kernel", local);
  const memory = mapMemory(byteLength);
  const { pid } = process;
  const regions = [{ start: memory.address, byteLength, imageOffset: 0, pageSize: PAGE_SIZE }];
  const { name, plan } = image;
  // A working set would be read whole, for nobody.
  const source = { ...image.source, replay: false, deadlineMs: DEADLINE_MS, atDeadline: "poison" as const };
  const served = { image: name, source, ...(plan === undefined ? {} : { plan }) };
  const note: GuestNote = { ...served, pid, uid: 0, gid: 0, regions, since: 0, handOverMs: 0 };
  const [state, pidfd] = [memfd(local, "minorfault-rehearsal", stateBytes(regions)), pidfdOpen(pid)];
  const descriptors = [uffd.fd, state, -1, pidfd];
  const entry: Entry = { id: "rehearsal", type: "guest", text: JSON.stringify(note), descriptors };
  try {
    uffd.register(memory.address, byteLength, { missing: true });
    const guest = await Guest.start(host, entry, true, () => undefined);
    try {
      local.call("madvise", memory.address, byteLength, MADV.POPULATE_READ);
      guest.release();
    } finally {
      // Before its descriptors are closed, whose numbers somebody else may get.
      await guest.pager.close();
    }
    return guest.pager;
  } finally {
    memory.close();
    uffd.close();
    closeAll([state, pidfd]);
  }
}
