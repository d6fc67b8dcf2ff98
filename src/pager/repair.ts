// Brings pages that were poisoned because they could not be brought before.
//
// A copy takes the place of the poison, so a thread that touches the page before its bytes are there still gets SIGBUS,
// never zeros. Kernels from 7.0 on refuse that: there the guest has to discard the page first, and its next touch asks
// the source again.

import { hasBit, nextSet } from "../base/bitmap.ts";
import type { Range } from "../base/range.ts";
import type { BulkState } from "./bulk.ts";
import type { FaultLoop } from "./fault-loop.ts";
import { type Part, pageAt, untilPage } from "./regions.ts";

export class Repair {
  readonly id: number;
  repaired = 0;
  lost = 0;
  readonly #todo: { readonly loop: FaultLoop; readonly part: Part; readonly page: number }[] = [];

  constructor(id: number, loops: readonly FaultLoop[], range: Range) {
    this.id = id;
    for (const loop of loops) {
      for (const part of loop.regions.parts) {
        const { poisoned } = part.region;
        const from = Math.max(range.start, part.start);
        const to = Math.min(range.until, part.until);
        if (poisoned === undefined || from >= to) continue;
        const until = Math.min(untilPage(part), pageAt(part, to - 1) + 1);
        for (let page = nextSet(poisoned, pageAt(part, from), until); page < until; ) {
          this.#todo.push({ loop, part, page });
          page = nextSet(poisoned, page + 1, until);
        }
      }
    }
  }

  step(): BulkState {
    for (let item = this.#todo[0]; item !== undefined; item = this.#todo[0]) {
      const { loop, part, page } = item;
      const { installer, fetchFrom } = loop;
      if (!loop.regions.parts.includes(part)) {
        this.#todo.shift();
        continue;
      }
      installer.install(part, page, page + 1);
      if (installer.isPutOff) return "put-off";
      if (installer.isAway && fetchFrom !== undefined) {
        const goesOnAt = fetchFrom(part, page, page + 1);
        if (goesOnAt === undefined) return "away";
        if (goesOnAt === page) continue;
      }
      this.#todo.shift();
      if (part.region.poisoned !== undefined && hasBit(part.region.poisoned, page)) this.lost++;
      else this.repaired++;
    }
    return "done";
  }
}
