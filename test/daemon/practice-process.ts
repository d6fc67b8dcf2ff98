// Run by rehearsal.test.ts: practises with a file of this machine, and says how often it has asked whether anybody is there.

import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { practise } from "../../src/daemon/rehearsal.ts";
import { openPagerHost } from "../../src/pager/index.ts";

const folder = mkdtempSync(join(tmpdir(), "minorfault-practice-"));
const path = join(folder, "memory");
writeFileSync(path, new Uint8Array(2 ** 20).fill(7));
const host = await openPagerHost({ placement: "block" });
const image = { name: "file", source: { url: path, kind: "raw" } } as const;
const far = { name: "far", source: { url: "http://127.0.0.1:1/memory" } };
let pieces = 0;
const isIdle = (): boolean => {
  pieces++;
  return true;
};
// Nothing that is far away is opened.
const open = async (name: string) => {
  if (name !== image.name) throw new Error(`${name} was opened`);
  return host.warm(image.source);
};
// What it waits with keeps no process alive.
const alive = setInterval(() => undefined, 1000);
await practise(host, [far, image], { open }, isIdle);
clearInterval(alive);
console.log(JSON.stringify({ pieces, guests: host.guests }));
rmSync(folder, { recursive: true });
process.exit(0);
