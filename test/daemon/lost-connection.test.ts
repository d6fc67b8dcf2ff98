// A connection that was lost with the keeper that had just accepted it: whoever waits there is told, whatever the others know.

import assert from "node:assert/strict";
import { test } from "node:test";
import { ERRNO } from "../../src/abi/errno.ts";
import { PAGE_SIZE } from "../../src/abi/memory.ts";
import { skipUnlessUserfaultfd as skip } from "../linux/host.ts";
import { Stand } from "./stand.ts";
import { startVmm } from "./vmm.ts";

const PAGES = 64;

test("a connection of which the spare alone was told when the keeper died is hung up", {
  skip,
  timeout: 120_000,
}, async (t) => {
  const stand = await Stand.open({ pages: PAGES, canDie: true });
  t.after(() => stand.close());
  const start = () => {
    const vmm = startVmm({ socket: stand.socket, regions: PAGES * PAGE_SIZE, image: stand.imagePath });
    t.after(() => vmm.close());
    return vmm;
  };
  const keepers = stand.count("keeper");
  // The keeper tells the spare before it tells the one who serves.
  stand.dieAt("told");
  const lost = start();
  await stand.until(() => stand.count("keeper") > keepers, "a keeper");
  assert.ok(stand.hasDied);
  // What it had sent was never read: the kernel calls that a reset.
  await assert.rejects(lost.refusal(), { errno: ERRNO.ECONNRESET });
  const again = start();
  assert.deepEqual((await again.touch({ count: PAGES })).wrong, []);
  assert.equal(stand.count("guest"), 1);
});
