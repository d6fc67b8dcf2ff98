// The links between the server's processes.

import assert from "node:assert/strict";
import { test } from "node:test";
import { hear, linkPair, tell } from "../../src/daemon/link.ts";
import { local } from "../../src/linux/index.ts";

test("all that a process had said is heard, also when it died with unread messages", () => {
  const [ours, theirs] = linkPair();
  tell(theirs, { kind: "drop", id: "1" });
  tell(theirs, { kind: "drop", id: "2" }, [theirs]);
  tell(ours, { kind: "retire" });
  local.call("close", theirs);
  for (const id of ["1", "2"]) {
    const arrived = hear(ours);
    assert.ok(typeof arrived === "object", `"${id}" was not heard`);
    assert.deepEqual(arrived.message, { kind: "drop", id });
    for (const fd of arrived.descriptors) local.call("close", fd);
  }
  assert.equal(hear(ours), "end");
  local.call("close", ours);
});
