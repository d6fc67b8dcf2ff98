// Runs the fault loop on a stage before the guest does: so that it has been compiled when the first fault comes.
//
// JavaScript that has run a thousand times is ten times as fast as at its first time. The stage is a piece of this
// thread's own memory, registered with a userfaultfd of its own, and a pipe that is full of fault messages: the loop
// reads and fills for real, and nobody waits for it.

import { MAP, PAGE_SIZE, PROT } from "../abi/memory.ts";
import { encodeMessage, UFFD_MSG_SIZE } from "../abi/message.ts";
import { wordsFor } from "../base/bitmap.ts";
import type { MinorfaultError } from "../base/errors.ts";
import { check, close, local, mmap, munmap, pipe } from "../linux/index.ts";
import { openUserfaultfd } from "../uffd/open.ts";
import type { SystemUserfaultfd } from "../uffd/userfaultfd.ts";
import { openPort } from "./chain-port.ts";
import { makeCounters } from "./counters.ts";
import { FaultLoop } from "./fault-loop.ts";
import type { FaultPort } from "./port.ts";
import { Region, RegionMap, wholePart } from "./regions.ts";
import { MemorySource } from "./source.ts";

/** What a pipe holds: 64 KiB of messages. */
const MESSAGES = 0x10000 / UFFD_MSG_SIZE;
/** After two of them all of the usual path is compiled, and the compiler's threads are done. */
const PASSES = 2;

/** Memory of this process under a userfaultfd of its own, with a loop that serves it. */
export interface Stage {
  readonly address: number;
  readonly pageCount: number;
  readonly loop: FaultLoop;
  /** Drops all pages, so that they can be served again. */
  reset(): void;
  /** `isInUse`: another thread may still touch it. Then its memory stays, and reads as zeros. */
  close(isInUse?: boolean): void;
}

/**
 * Sets a stage of so many pages; `readFd` is where messages come from, if not from the userfaultfd. Throws what
 * `openUserfaultfd` throws where this process may not have one.
 */
export function setStage(pageCount: number, readFd?: number): Stage {
  const uffd: SystemUserfaultfd = openUserfaultfd("kernel", local);
  const byteLength = pageCount * PAGE_SIZE;
  const address = mmap(local, byteLength);
  const source = mmap(local, byteLength, {
    protection: PROT.READ,
    flags: MAP.PRIVATE | MAP.ANONYMOUS,
  });
  uffd.register(address, byteLength, { missing: true });
  const resident = new Uint32Array(wordsFor(pageCount));
  const region = new Region({
    pageSize: PAGE_SIZE,
    pageCount,
    imageOffset: 0,
    windowPages: 1,
    resident,
    zero: new Uint32Array(resident.length),
    hasZeros: false,
  });
  const port: FaultPort = openPort(uffd.fd, readFd === undefined ? {} : { readFd });
  const loop = new FaultLoop({
    port,
    regions: new RegionMap([wholePart(address, region)]),
    source: new MemorySource(source, byteLength),
    counters: makeCounters(),
    now: () => performance.now(),
    onError: (error: MinorfaultError) => {
      throw error;
    },
    onFork: (fd) => close(local, fd),
  });
  return {
    address,
    pageCount,
    loop,
    reset() {
      uffd.unregister(address, byteLength);
      // A fresh mapping in the same place.
      mmap(local, byteLength, { at: address, flags: MAP.PRIVATE | MAP.ANONYMOUS | MAP.FIXED });
      uffd.register(address, byteLength, { missing: true });
      resident.fill(0);
    },
    close(isInUse = false) {
      uffd.close();
      port.close();
      if (!isInUse) munmap(local, address, byteLength);
      munmap(local, source, byteLength);
    },
  };
}

/** Serves a few thousand made-up faults; takes some milliseconds. */
export function rehearse(): void {
  const [reader, writer] = pipe();
  try {
    const stage = setStage(MESSAGES, reader);
    const message = local.share(UFFD_MSG_SIZE);
    try {
      for (let pass = 0; pass < PASSES; pass++) {
        if (pass > 0) stage.reset();
        for (let page = 0; page < MESSAGES; page++) {
          const address = stage.address + page * PAGE_SIZE;
          encodeMessage(message.view, 0, { event: "pagefault", flags: page & 1, address, ptid: 0 });
          check(local.call("write", writer, message.address, UFFD_MSG_SIZE), "write");
        }
        // In short pieces, as a server does, since the start of a function is where its compiled form takes over.
        while (stage.loop.pump(64) === 0);
      }
    } finally {
      message.close();
      stage.close();
    }
  } finally {
    close(local, reader);
    close(local, writer);
  }
}
