// Touching much memory, in order and at random: fault-around against one page at a time in C, against the kernel's own
// zero pages, and against a plain loop of big copies.

import { PAGE_SIZE } from "../src/abi/memory.ts";
import type { CHandlers } from "./c-handler.ts";
import type { LoadMeter } from "./load.ts";
import { atLeast, atMost, type Group, measured, type Verdict } from "./report.ts";
import { alternate, type Contestant, ratioOf } from "./rounds.ts";
import type { Stand } from "./stand.ts";

const PIECE = 2 * 1024 * 1024;
const MIB = 1024 * 1024;

export interface TouchOptions {
  readonly stand: Stand;
  readonly meter: LoadMeter;
  readonly handlers: CHandlers | undefined;
  readonly rounds: number;
  readonly byteLength: number;
  /** The part that the page-by-page handler in C gets: its time is told for the whole, by pages. */
  readonly partBytes: number;
  readonly windows: readonly number[];
  /** The window that the targets are about. */
  readonly window: number;
}

export async function touchMuch(options: TouchOptions): Promise<Group> {
  const { stand, meter, handlers, rounds, byteLength, partBytes, windows, window } = options;
  const pages = byteLength / PAGE_SIZE;
  const shuffled = stand.shuffled(pages);
  stand.walkOver(shuffled);
  const partShuffled = stand.shuffled(partBytes / PAGE_SIZE);
  stand.walkOver(partShuffled);
  const contestants: Contestant[] = [];
  for (const order of ["in order", "at random"] as const) {
    const isRandom = order === "at random";
    const list = isRandom ? { list: shuffled } : {};
    contestants.push({
      name: `kernel's own zero pages, ${order}`,
      run: () => anonymous(options, pages, list),
    });
    for (const window of windows) {
      contestants.push({
        name: `ours, ${window} pages, ${order}`,
        run: () => ours(options, window, pages, list),
      });
    }
    if (handlers !== undefined) {
      const part = isRandom ? { list: partShuffled } : {};
      const run = (cpu: number) => () => pageByPage(options, handlers, cpu, part);
      contestants.push({ name: `C, page by page, same CPU, ${order}`, run: run(stand.home) });
      if (stand.other !== undefined) {
        contestants.push({ name: `C, page by page, other CPU, ${order}`, run: run(stand.other) });
      }
      contestants.push({
        name: `C, one bulk loop, then touching, ${order}`,
        run: () => bulk(options, handlers, pages, list),
      });
    }
  }
  if (handlers !== undefined) {
    contestants.push({ name: "C, one bulk loop, no touching", run: () => bulk(options, handlers, 0) });
  }
  try {
    const series = await alternate(contestants, rounds, meter);
    const verdicts: Verdict[] = [];
    const notes: string[] = [];
    for (const order of ["in order", "at random"]) {
      const name = `ours, ${window} pages, ${order}`;
      const against = (other: string): number => ratioOf(series, "seconds", name, other);
      if (handlers !== undefined && stand.other !== undefined) {
        const gain = 1 / against(`C, page by page, other CPU, ${order}`);
        verdicts.push(atLeast(`${order}: C page by page on another CPU : ours`, gain, 30));
      }
      verdicts.push(
        atMost(`${order}: ours : kernel's own`, against(`kernel's own zero pages, ${order}`), 1.1),
      );
      if (handlers !== undefined) {
        // The target as it is written: the loop alone, which touches nothing.
        const loop = against("C, one bulk loop, no touching");
        verdicts.push(atMost(`${order}: ours : one bulk loop`, loop, 1.3));
        const likeForLike = against(`C, one bulk loop, then touching, ${order}`).toFixed(2);
        notes.push(
          `${order}, like for like: ours : one bulk loop and then the same touching is ${likeForLike}`,
        );
      }
    }
    return {
      title: `Touching ${byteLength / MIB} MiB`,
      columns: [
        { key: "seconds", title: "s", digits: 3 },
        { key: "usPerPage", title: "µs a page", digits: 3 },
      ],
      ...measured(series),
      verdicts,
      notes: [
        ...notes,
        `C page by page was measured on ${partBytes / MIB} MiB and is scaled by pages to ${byteLength / MIB}`,
        "kernel's own: first store into private anonymous memory; the others: first load, then every byte is right",
        `ours: placement auto; verdicts are for the window of ${window} pages`,
      ],
    };
  } finally {
    shuffled.close();
    partShuffled.close();
  }
}

type Touch = Parameters<Stand["walk"]>[2];

function figures(seconds: number, pages: number): { seconds: number; usPerPage: number } {
  return { seconds, usPerPage: (seconds * 1e6) / pages };
}

function anonymous(
  { stand, byteLength }: TouchOptions,
  pages: number,
  touch: Touch,
): ReturnType<typeof figures> {
  const base = stand.mapPlain(byteLength);
  try {
    return figures(stand.walk(base, pages, { ...touch, write: 1 }).seconds, pages);
  } finally {
    stand.unmapPlain(base, byteLength);
  }
}

async function ours(
  { stand, byteLength }: TouchOptions,
  window: number,
  pages: number,
  touch: Touch,
): Promise<ReturnType<typeof figures>> {
  const range = stand.map(byteLength);
  const pager = await stand.pager(range, "auto", window);
  try {
    return figures(stand.walk(range.base, pages, touch).seconds, pages);
  } finally {
    await pager.close();
    stand.unmap(range);
  }
}

async function pageByPage(
  { stand, byteLength, partBytes }: TouchOptions,
  handlers: CHandlers,
  cpu: number,
  touch: Touch,
): Promise<ReturnType<typeof figures>> {
  const range = stand.map(partBytes);
  try {
    await handlers.serve("block", stand.post(range, cpu));
    const { seconds } = stand.walk(range.base, partBytes / PAGE_SIZE, touch);
    return figures((seconds * byteLength) / partBytes, byteLength / PAGE_SIZE);
  } finally {
    await handlers.stop();
    stand.unmap(range);
  }
}

/** Everything in one loop of big copies, and then `pages` touched. */
async function bulk(
  { stand, byteLength }: TouchOptions,
  handlers: CHandlers,
  pages: number,
  touch: Touch = {},
): Promise<ReturnType<typeof figures>> {
  const range = stand.map(byteLength);
  try {
    const nanoseconds = await handlers.bulk(stand.post(range, stand.home), byteLength, PIECE);
    const walked = pages === 0 ? 0 : stand.walk(range.base, pages, touch).seconds;
    return figures(nanoseconds / 1e9 + walked, byteLength / PAGE_SIZE);
  } finally {
    stand.unmap(range);
  }
}
