// open(): a memory over a file or an image, in whichever way is best here, and it says which.

import { parseByteSize } from "../../base/byte-size.ts";
import { MinorfaultError } from "../../base/errors.ts";
import { BUDGET_BYTES_MIN } from "../../pager/index.ts";
import { type Content, openContent } from "./content.ts";
import { loadEagerly } from "./eager-memory.ts";
import { openKernelMemory } from "./kernel-memory.ts";
import { openMappedMemory } from "./mapped-memory.ts";
import type { LazyMemory, MemoryMode, OpenMemoryOptions } from "./options.ts";
import { warn } from "./warn.ts";
import { withWayOut } from "./way-out.ts";

const MODES: ReadonlySet<string> = new Set(["read", "private", "write-back"]);
const PAGERS: ReadonlySet<string> = new Set(["thread", "process"]);
const IMPLEMENTATIONS: ReadonlySet<string> = new Set(["auto", "kernel", "mmap", "software"]);

/**
 * Opens a memory that holds what a file or an image does, and loads as it is touched.
 *
 * @throws ERR_UFFD_MISSING or ERR_UFFD_DENIED where pages would have to be served and this process may not; the hint
 *   names what works without.
 */
export async function open(target: string | URL, options: OpenMemoryOptions = {}): Promise<LazyMemory> {
  const { mode = "read", implementation = "auto", onError = warn } = options;
  check("mode", mode, MODES);
  check("implementation", implementation, IMPLEMENTATIONS);
  check("pager", options.pager ?? "thread", PAGERS);
  const budgetBytes = budgetOf(options.budget);
  const { trace = false, fetch } = options;
  // What is replayed is not touched, and would be missing in the trace.
  const content = await openContent(target, trace ? { ...fetch, replay: false } : fetch);
  if (implementation === "software") return await loadEagerly(content, mode, budgetBytes, "it was asked for");
  const isElsewhere = options.pager === "process" || options.server !== undefined;
  const mapping = trace || isElsewhere ? undefined : whyMapping(content, mode, budgetBytes);
  if (implementation === "mmap" && mode !== "read") {
    throw new MinorfaultError(
      "ERR_BAD_ARGUMENT",
      `The kernel's own mapping is for mode "read", not "${mode}"`,
    );
  }
  if (implementation === "mmap") return openMappedMemory(content, "it was asked for");
  if (implementation === "auto" && mapping !== undefined) return openMappedMemory(content, mapping);
  const why =
    implementation === "kernel" || options.server !== undefined
      ? "it was asked for"
      : whyPager(content, mode, trace, budgetBytes > 0);
  try {
    // A pager of another process tells by messages.
    const says = options.onError === undefined && !isElsewhere;
    return await openKernelMemory(content, { ...options, mode, budgetBytes, why, onError, says });
  } catch (error) {
    throw withWayOut(error);
  }
}

/** Why the kernel's own mapping is the best, if it is. */
function whyMapping(content: Content, mode: MemoryMode, budgetBytes: number): string | undefined {
  if (content.path === undefined || mode !== "read" || budgetBytes > 0 || process.platform !== "linux") {
    return undefined;
  }
  return "a plain local file that is only read: no pager is faster than the kernel's own mapping";
}

function whyPager(content: Content, mode: MemoryMode, trace: boolean, hasBudget: boolean): string {
  if (trace) return "touches are recorded";
  if (content.path === undefined) return "the bytes have to be fetched, verified or decompressed";
  if (mode !== "read") return `mode "${mode}" was asked for`;
  return hasBudget ? "a budget was given" : "a pager in a process of its own was asked for";
}

function budgetOf(budget: number | string | undefined): number {
  if (budget === undefined) return 0;
  const bytes = parseByteSize(budget, "budget");
  if (bytes < BUDGET_BYTES_MIN) {
    throw new MinorfaultError(
      "ERR_OUT_OF_RANGE",
      `A budget has at least ${BUDGET_BYTES_MIN} bytes, not ${bytes}`,
    );
  }
  return bytes;
}

function check(name: string, value: string, allowed: ReadonlySet<string>): void {
  if (allowed.has(value)) return;
  throw new MinorfaultError("ERR_BAD_ARGUMENT", `${name} is one of ${[...allowed].join(", ")}, not ${value}`);
}
