// A budget on both systems: pages are evicted before others are installed, and what the guest has written is never lost.

import assert from "node:assert/strict";
import { after, describe, test } from "node:test";
import { PAGE_SIZE } from "../../src/abi/memory.ts";
import type { System } from "../../src/abi/system.ts";
import { countBits } from "../../src/base/bitmap.ts";
import { Random } from "../../src/base/random.ts";
import { KernelSystem } from "../../src/guest/process/index.ts";
import { createSystem } from "../../src/uffd/software/index.ts";
import { skipUnlessUserfaultfd } from "../linux/host.ts";
import { imageByte, Scene, type SceneOptions } from "./scene.ts";

const SYSTEMS: readonly { name: string; skip: string | false; make: () => System }[] = [
  { name: "software", skip: false, make: () => createSystem() },
  { name: "kernel", skip: skipUnlessUserfaultfd, make: () => new KernelSystem() },
];
const PAGES = 96;
/** Runs of 16 pages are evicted. */
const BUDGET_PAGES = 32;
const LIMITED = { pages: PAGES, budgetBytes: BUDGET_PAGES * PAGE_SIZE } as const;

for (const { name, skip, make } of SYSTEMS) {
  describe(`evictor on the ${name} system`, { skip }, () => {
    let system: System | undefined;
    const scene = (options: SceneOptions): Scene => {
      system ??= make();
      return new Scene(system, options);
    };
    after(() => system?.close());

    const checkBudget = (stage: Scene): void => {
      const resident = countBits(stage.region.resident, PAGES);
      assert.ok(resident <= BUDGET_PAGES, `${resident} pages are resident`);
      const { bytesInstalled, bytesEvicted } = stage.statistics;
      assert.equal(bytesInstalled - bytesEvicted, resident * PAGE_SIZE);
    };

    test("a memory three times as large is walked twice: right bytes, never more than the budget", () => {
      for (const windowPages of [1, 8]) {
        const stage = scene({ ...LIMITED, windowPages });
        for (let walk = 0; walk < 2; walk++) {
          for (let page = 0; page < PAGES; page++) {
            assert.equal(stage.load(page), imageByte(page), `page ${page}`);
            checkBudget(stage);
          }
        }
        assert.equal(stage.statistics.faults, (2 * PAGES) / windowPages, "what was evicted is a fault again");
        assert.deepEqual(stage.errors, []);
        stage.checkBooks();
      }
    });

    test("written pages go to the swap file and come back from it", (t) => {
      const seed = Number(process.env.SEED ?? Date.now() % 2 ** 31);
      t.diagnostic(`SEED=${seed}`);
      const random = new Random(seed);
      const stage = scene({ ...LIMITED, windowPages: 4, writes: "swap" });
      const expected = Array.from({ length: PAGES }, (_, page) => imageByte(page));
      for (let step = 0; step < 400; step++) {
        const page = random.below(PAGES);
        if (random.below(3) === 0) {
          expected[page] = random.below(256);
          stage.store(page, expected[page]!);
        } else assert.equal(stage.load(page), expected[page], `page ${page} at step ${step}`);
        checkBudget(stage);
      }
      for (let page = 0; page < PAGES; page++) assert.equal(stage.load(page), expected[page], `page ${page}`);
      const { bytesSwapped } = stage.statistics;
      assert.ok(bytesSwapped > 0, "something was swapped");
      assert.deepEqual(stage.errors, []);
      stage.checkBooks();
    });

    test("without a swap file written pages stay, others go; the owner is told once that the budget can't be kept", () => {
      const stage = scene({ ...LIMITED, writes: "no swap" });
      for (let page = 0; page < PAGES; page += 2) stage.store(page, 251);
      for (let page = 0; page < PAGES; page++) {
        assert.equal(stage.load(page), page % 2 === 0 ? 251 : imageByte(page), `page ${page}`);
      }
      assert.deepEqual(
        stage.errors.map(({ code }) => code),
        ["ERR_LIMIT"],
      );
      assert.match(stage.errors[0]?.message ?? "", /pages were written/);
      assert.equal(stage.statistics.bytesSwapped, 0);
    });
  });
}
