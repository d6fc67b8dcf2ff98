// A line on standard error from the thread that serves. Whoever owns a pager may be the one who stands at the page that
// can't be brought: it dies of SIGBUS before it could say why.

import { POLL } from "../abi/memory.ts";
import { local, poll, putBytes } from "../linux/index.ts";
import type { ErrorNote } from "./notes.ts";

const STDERR = 2;
/** LIMIT: bytes of a line: what a pipe that takes anything takes at once (PIPE_BUF). */
const LINE_BYTES_MAX = 4096;

/** Says it, unless that would have to wait: nobody who serves faults waits for a reader. */
export function sayError({ message, hint, code, cause }: ErrorNote): void {
  const why = cause === undefined ? `. ${hint}` : `: ${(cause as Partial<Error>).message ?? String(cause)}`;
  const line = new TextEncoder().encode(`minorfault: ${message}${why} (${code})\n`);
  if ((poll(local, [{ fd: STDERR, events: POLL.OUT }], 0)[0]! & POLL.OUT) === 0) return;
  const bytes = line.subarray(0, LINE_BYTES_MAX);
  local.call("write", STDERR, putBytes(local, 0, bytes), bytes.byteLength);
}
