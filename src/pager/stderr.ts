// A line on standard error from the thread that serves. Whoever owns a pager may be the one who stands at the page that
// can't be brought: it dies of SIGBUS before it could say why.

import { fstatSync } from "node:fs";
import { O, POLL } from "../abi/memory.ts";
import { close, local, open, poll, putBytes } from "../linux/index.ts";
import type { ErrorNote } from "./notes.ts";

const STDERR = 2;
/** Beyond what `O` has: a terminal that is opened is not to become ours. */
const O_NOCTTY = 0x100;
/** LIMIT: bytes of a line: what a pipe that takes anything takes at once (PIPE_BUF). */
const LINE_BYTES_MAX = 4096;

/** Says it, unless that would have to wait: nobody who serves faults waits for a reader. */
export function sayError({ message, hint, code, cause }: ErrorNote): void {
  const why = cause === undefined ? `. ${hint}` : `: ${(cause as Partial<Error>).message ?? String(cause)}`;
  const line = new TextEncoder().encode(`minorfault: ${message}${why} (${code})\n`);
  const bytes = line.subarray(0, LINE_BYTES_MAX);
  const fd = withoutWaiting();
  if (fd === undefined) return;
  local.call("write", fd, putBytes(local, 0, bytes), bytes.byteLength);
  if (fd !== STDERR) close(local, fd);
}

/**
 * Where a write does not wait. A pipe or a terminal is opened once more, since whether a write waits is a matter of all
 * who share what was opened. A socket that takes anything has room for a line, and a file has nobody to wait for.
 */
function withoutWaiting(): number | undefined {
  try {
    const stat = fstatSync(STDERR);
    if (!stat.isFIFO() && !stat.isCharacterDevice()) {
      const takes = (poll(local, [{ fd: STDERR, events: POLL.OUT }], 0)[0]! & POLL.OUT) !== 0;
      return takes ? STDERR : undefined;
    }
    return open(local, `/proc/self/fd/${STDERR}`, O.WRONLY | O.NONBLOCK | O.CLOEXEC | O_NOCTTY);
  } catch {
    return undefined;
  }
}
