// What a spare does before its turn comes: it takes over a guest that is nothing but a little memory of its own, of every
// image that is warm. So the code has been run, each image's thread has fetched, and the first real guest does not
// wait for any of that.
//
// Who serves nobody does the same with more memory, again and again, until the code has been compiled for good. A restore is
// too short for that: its first second would be one of two CPUs that compile instead of serving it.
//
// The memory is asked for by madvise(MADV_POPULATE_READ), which fails where a page can't be had; a touch would be SIGBUS.

import { setTimeout as delay, setImmediate as turn } from "node:timers/promises";
import { MADV, PAGE_SIZE } from "../abi/memory.ts";
import { local, mapMemory, memfd, pidfdOpen } from "../linux/index.ts";
import type { Pager, PagerHost } from "../pager/index.ts";
import { schemeOf } from "../source/scheme.ts";
import { openUserfaultfd } from "../uffd/index.ts";
import type { ImageConfig } from "./config.ts";
import { Guest, stateBytes } from "./guest.ts";
import type { Images } from "./images.ts";
import { closeAll } from "./ledger.ts";
import type { Entry } from "./link.ts";
import type { GuestNote } from "./texts.ts";

const BYTES = 16 * PAGE_SIZE;
const ROUNDS = 3;
/** For practice: as much as it takes until nothing is left to compile, and no more of an image than lies side by side. */
const PRACTICE = { bytes: 16 * 2 ** 20, rounds: 8 };
/** What is asked for at once: whoever hands over waits for that long, which is less than a millisecond. */
const PIECE_BYTES = 256 * 1024;
/** How often it is looked whether nobody is there, and how often that has to have been so. */
const LOOK_MS = 100;
const IDLE_LOOKS = 5;
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
      const { pager } = await takeOverNothing(host, image, imageBytes, BYTES, () => true);
      if (look(pager)) return;
    } catch {
      // The next round may be luckier.
    }
  }
}

/** Restores nothing, of every image that lies on this machine, while nobody else is served; a guest that comes ends a round. */
export async function practise(
  host: PagerHost,
  images: readonly ImageConfig[],
  opened: Pick<Images, "open">,
  isIdle: () => boolean,
): Promise<void> {
  for (const image of images) {
    if (image.warm === false || !isAtHand(image)) continue;
    try {
      const { byteLength } = await opened.open(image.name);
      for (let round = 0; round < PRACTICE.rounds; round++) {
        if (round === 0 || !isIdle()) await idleness(isIdle);
        const { isWhole } = await takeOverNothing(host, image, byteLength, PRACTICE.bytes, isIdle);
        // Its bytes do not come.
        if (!isWhole && isIdle()) break;
      }
    } catch {
      // What is wrong with an image its guests will say.
    }
  }
}

async function idleness(isIdle: () => boolean): Promise<void> {
  for (let looks = 0; looks < IDLE_LOOKS; looks = isIdle() ? looks + 1 : 0) {
    await delay(LOOK_MS, undefined, { ref: false });
  }
}

function isAtHand({ source }: ImageConfig): boolean {
  return "url" in source && schemeOf(source.url) === undefined;
}

interface Rehearsed {
  readonly pager: Pager;
  /** Nobody else was in need of us meanwhile. */
  readonly isWhole: boolean;
}

async function takeOverNothing(
  host: PagerHost,
  image: ImageConfig,
  imageBytes: number,
  bytesMax: number,
  goesOn: () => boolean,
): Promise<Rehearsed> {
  const byteLength = Math.min(bytesMax, Math.ceil(imageBytes / PAGE_SIZE) * PAGE_SIZE);
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
    let at = 0;
    try {
      for (; at < byteLength && (at === 0 || goesOn()); at += PIECE_BYTES) {
        // Others of this thread have their turn between any two pieces.
        if (at > 0) await turn();
        const pieceBytes = Math.min(PIECE_BYTES, byteLength - at);
        if (local.call("madvise", memory.address + at, pieceBytes, MADV.POPULATE_READ) !== 0) break;
      }
      guest.release();
    } finally {
      // Before its descriptors are closed, whose numbers somebody else may get.
      await guest.pager.close();
    }
    return { pager: guest.pager, isWhole: at >= byteLength };
  } finally {
    memory.close();
    uffd.close();
    closeAll([state, pidfd]);
  }
}
