// Run by rehearsal.test.ts: rehearses with an image whose bytes never come, and says how long that took.

import { rehearse } from "../../src/daemon/rehearsal.ts";
import { openPagerHost } from "../../src/pager/index.ts";

const [module = ""] = process.argv.slice(2);
const byteLength = 64 * 4096;
const source = { module, argument: { byteLength, hanging: [0] } };
const host = await openPagerHost({ placement: "block" });
let looks = 0;
await rehearse(host, { name: "stuck", source }, byteLength, () => {
  looks++;
  return false;
});
console.log(JSON.stringify({ looks, guests: host.guests }));
// A read that hangs would keep the thread that fetches.
process.exit(0);
