// Looks now and then whether guests still live, for serving threads that wait for nothing but a message: one timer for all
// of them. Where a thread waits for several things at once, it hears of the end of a process itself.

import { UFFDIO_ZEROPAGE_MODE } from "../abi/userfaultfd.ts";
import { close, duplicate, local } from "../linux/index.ts";
import { Ioctls } from "../uffd/ioctls.ts";
import { isProcessGone } from "./liveness.ts";

const LOOK_MS = 250;

interface Watched {
  readonly ioctls: Ioctls;
  readonly onGone: () => void;
}

const watched = new Set<Watched>();
let timer: NodeJS.Timeout | undefined;

/** Calls `onGone` once when the process behind a userfaultfd has ended. Answers how to stop that. */
export function watchGuest(descriptor: number, onGone: () => void): () => void {
  const fd = duplicate(local, descriptor);
  const one: Watched = { ioctls: new Ioctls(local, fd), onGone };
  watched.add(one);
  timer ??= setInterval(look, LOOK_MS).unref();
  let isStopped = false;
  return () => {
    if (isStopped) return;
    isStopped = true;
    watched.delete(one);
    close(local, fd);
    if (watched.size > 0) return;
    clearInterval(timer);
    timer = undefined;
  };
}

function look(): void {
  for (const one of [...watched]) {
    const { DONTWAKE } = UFFDIO_ZEROPAGE_MODE;
    const isGone = isProcessGone(
      (start, byteLength) => one.ioctls.zeropage(start, byteLength, DONTWAKE).errno,
    );
    if (!isGone) continue;
    watched.delete(one);
    one.onGone();
  }
}
