// The kernel's pool of huge pages: raised while the suite runs, and put back afterwards, also when interrupted.
//
// Raised by what the suite needs and lowered by what it got, whatever others do with the pool meanwhile: two runs at
// a time leave it as it was before both.

import { readFileSync, writeFileSync } from "node:fs";

const POOL = "/proc/sys/vm/nr_hugepages";
/** Pages that the cases have at a time, with some to spare for processes that are still ending. */
const PAGES_NEEDED = 16;

export interface Pool {
  /** Why there are too few huge pages; undefined when there are enough. */
  readonly missing: string | undefined;
  /** Puts the pool back. Safe to call twice. */
  restore(): void;
}

function pages(): number {
  return Number(readFileSync(POOL, "utf8"));
}

/** Adds pages to the pool. Interrupts take them away again before the process ends. */
export function raisePool(): Pool {
  let added = 0;
  try {
    const before = pages();
    writeFileSync(POOL, String(before + PAGES_NEEDED));
    added = pages() - before;
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    return { missing: `The huge page pool cannot be raised: ${reason}`, restore() {} };
  }
  const restore = guardedRestore(added);
  if (added >= PAGES_NEEDED) return { missing: undefined, restore };
  restore();
  return { missing: `The kernel found only ${added} of ${PAGES_NEEDED} huge pages`, restore() {} };
}

function guardedRestore(added: number): () => void {
  let restored = false;
  const handlers = new Map<"SIGHUP" | "SIGINT" | "SIGTERM", () => void>([
    ["SIGHUP", () => process.exit(129)],
    ["SIGINT", () => process.exit(130)],
    ["SIGTERM", () => process.exit(143)],
  ]);
  const restore = () => {
    if (restored) return;
    restored = true;
    process.off("exit", restore);
    for (const [signal, handler] of handlers) process.off(signal, handler);
    writeFileSync(POOL, String(Math.max(0, pages() - added)));
  };
  for (const [signal, handler] of handlers) process.on(signal, handler);
  process.on("exit", restore);
  return restore;
}
