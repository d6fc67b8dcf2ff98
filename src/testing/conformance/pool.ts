// The kernel's pool of huge pages: raised while the suite runs, and put back as it was, also when it is interrupted.

import { readFileSync, writeFileSync } from "node:fs";

const POOL = "/proc/sys/vm/nr_hugepages";
const FREE = /^HugePages_Free:\s+(\d+)$/m;
/** Pages that cases need free at once: each releases its own, a killed process a moment later. */
export const HUGE_PAGES_NEEDED = 16;

export interface Pool {
  /** Why there are too few huge pages; undefined when there are enough. */
  readonly missing: string | undefined;
  /** Puts the pool back. Safe to call twice. */
  restore(): void;
}

function freePages(): number {
  return Number(FREE.exec(readFileSync("/proc/meminfo", "utf8"))?.[1] ?? 0);
}

/** Raises the pool if it has too few free pages. Interrupts restore it before the process ends. */
export function raisePool(): Pool {
  let before: string;
  try {
    before = readFileSync(POOL, "utf8").trim();
    const free = freePages();
    if (free >= HUGE_PAGES_NEEDED) return { missing: undefined, restore() {} };
    writeFileSync(POOL, String(Number(before) + HUGE_PAGES_NEEDED - free));
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    return { missing: `The huge page pool cannot be raised: ${reason}`, restore() {} };
  }
  const restore = guardedRestore(before);
  const free = freePages();
  if (free >= HUGE_PAGES_NEEDED) return { missing: undefined, restore };
  restore();
  return {
    missing: `The kernel found only ${free} of ${HUGE_PAGES_NEEDED} huge pages`,
    restore() {},
  };
}

function guardedRestore(before: string): () => void {
  let restored = false;
  const restore = () => {
    if (restored) return;
    restored = true;
    process.off("exit", restore);
    for (const [signal, handler] of handlers) process.off(signal, handler);
    writeFileSync(POOL, before);
  };
  const handlers = new Map<"SIGINT" | "SIGTERM", () => void>([
    ["SIGINT", () => process.exit(130)],
    ["SIGTERM", () => process.exit(143)],
  ]);
  for (const [signal, handler] of handlers) process.on(signal, handler);
  process.on("exit", restore);
  return restore;
}
