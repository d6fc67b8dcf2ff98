// How long reads of this thread have waited for a disk, by how long they took: what the page cache has takes some ten
// microseconds, and nothing on a disk less than sixty. A guess, good enough to decide what is worth reading ahead.

/** Milliseconds that the page cache does not take: at all, and for a MiB. */
const CACHED_MS = { read: 0.05, mebibyte: 0.2 } as const;

let waitedMs = 0;

export function noteRead(milliseconds: number, byteLength: number): void {
  if (milliseconds > CACHED_MS.read + (CACHED_MS.mebibyte * byteLength) / 2 ** 20) waitedMs += milliseconds;
}

/** So many milliseconds since this was asked last. */
export function takeDiskWait(): number {
  const taken = waitedMs;
  waitedMs = 0;
  return taken;
}
