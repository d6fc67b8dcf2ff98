// Installing everything at once: our `installAll` against the same loop in C, in pieces of 64 KiB and 2 MiB, and into huge
// pages.

import { readFileSync, writeFileSync } from "node:fs";
import { HUGE_PAGE_SIZE, PAGE_SIZE } from "../src/abi/memory.ts";
import type { CHandlers } from "./c-handler.ts";
import type { LoadMeter } from "./load.ts";
import { atLeast, type Group, measured, type Verdict } from "./report.ts";
import { alternate, type Contestant, ratioOf } from "./rounds.ts";
import type { Stand } from "./stand.ts";

const GIB = 1024 ** 3;
const C_HUGE = "C, 2 MiB huge pages";
const POOL = "/proc/sys/vm/nr_hugepages";

export interface BulkOptions {
  readonly stand: Stand;
  readonly meter: LoadMeter;
  readonly handlers: CHandlers | undefined;
  readonly rounds: number;
  readonly byteLength: number;
}

export async function installEverything(options: BulkOptions): Promise<Group> {
  const { meter, handlers, rounds, byteLength } = options;
  const pieces = [
    { name: "64 KiB", bytes: 64 * 1024 },
    { name: "2 MiB", bytes: HUGE_PAGE_SIZE },
  ];
  const contestants: Contestant[] = [];
  for (const { name, bytes } of pieces) {
    if (handlers !== undefined) {
      contestants.push({ name: `C, ${name} pieces`, run: () => c(options, handlers, bytes) });
    }
    contestants.push({ name: `ours, ${name} pieces`, run: () => ours(options, bytes, PAGE_SIZE) });
  }
  const pool = HugePagePool.raise(Math.ceil(byteLength / HUGE_PAGE_SIZE) + 8);
  const huge = "ours, 2 MiB huge pages";
  if (typeof pool !== "string") {
    if (handlers !== undefined) {
      contestants.push({
        name: C_HUGE,
        run: () => c(options, handlers, HUGE_PAGE_SIZE, true),
      });
    }
    contestants.push({ name: huge, run: () => ours(options, HUGE_PAGE_SIZE, HUGE_PAGE_SIZE) });
  }
  try {
    const series = await alternate(contestants, rounds, meter);
    const verdicts: Verdict[] = [];
    for (const { name } of pieces) {
      if (handlers === undefined) break;
      const ratio = ratioOf(series, "rate", `ours, ${name} pieces`, `C, ${name} pieces`);
      verdicts.push(atLeast(`${name} pieces, ours : C`, ratio, 0.95));
    }
    if (typeof pool !== "string") {
      verdicts.push(
        atLeast("huge pages : 2 MiB pieces", ratioOf(series, "rate", huge, "ours, 2 MiB pieces"), 3),
      );
    }
    return {
      title: `Installing ${byteLength / GIB} GiB at once`,
      columns: [{ key: "rate", title: "GiB/s", digits: 2 }],
      ...measured(series),
      verdicts,
      notes: [
        ...(typeof pool === "string" || handlers === undefined
          ? []
          : [`2 MiB huge pages, ours : C is ${ratioOf(series, "rate", huge, C_HUGE).toFixed(2)}`]),
        "ours is timed from the call of installAll to the promise, C inside its loop",
        ...(typeof pool === "string" ? [`no huge pages: ${pool}`] : []),
      ],
    };
  } finally {
    if (typeof pool !== "string") pool.restore();
  }
}

async function c(
  { stand, byteLength }: BulkOptions,
  handlers: CHandlers,
  piece: number,
  huge = false,
): Promise<{ rate: number }> {
  const range = stand.map(byteLength, { huge });
  try {
    const cpu = stand.other ?? stand.home;
    const nanoseconds = await handlers.bulk(stand.post(range, cpu), byteLength, piece);
    return { rate: byteLength / GIB / (nanoseconds / 1e9) };
  } finally {
    stand.unmap(range);
  }
}

async function ours(
  { stand, byteLength }: BulkOptions,
  pieceBytes: number,
  pageSize: number,
): Promise<{ rate: number }> {
  const range = stand.map(byteLength, { huge: pageSize === HUGE_PAGE_SIZE });
  const pager = await stand.pager(range, "auto", 1, pageSize);
  try {
    const begin = performance.now();
    await pager.installAll({ pieceBytes });
    return { rate: byteLength / GIB / ((performance.now() - begin) / 1000) };
  } finally {
    await pager.close();
    stand.unmap(range);
  }
}

/** The pool of 2 MiB pages, made larger for a while. */
class HugePagePool {
  readonly #before: string;
  readonly #atExit = (): void => this.restore();

  constructor(before: string) {
    this.#before = before;
    process.on("exit", this.#atExit);
  }

  /** A string says why it can't be had. */
  static raise(pages: number): HugePagePool | string {
    try {
      const before = readFileSync(POOL, "utf8").trim();
      const pool = new HugePagePool(before);
      writeFileSync(POOL, String(Number(before) + pages));
      const got = Number(readFileSync(POOL, "utf8")) - Number(before);
      if (got >= pages) return pool;
      pool.restore();
      return `the system gave ${got} of ${pages} huge pages`;
    } catch (error) {
      return error instanceof Error ? error.message : String(error);
    }
  }

  restore(): void {
    process.off("exit", this.#atExit);
    writeFileSync(POOL, this.#before);
  }
}
