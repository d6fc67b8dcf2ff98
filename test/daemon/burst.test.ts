// Many guests that come in the same moment: all mean well, so all are served, and right.

import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { PAGE_SIZE } from "../../src/abi/memory.ts";
import { startServer } from "../../src/daemon/start.ts";
import { KernelSystem } from "../../src/guest/process/index.ts";
import { skipUnlessUserfaultfd } from "../linux/host.ts";
import { guardServer } from "./guard.ts";
import { ImageContent, startVmm } from "./vmm.ts";

const GUESTS = 100;
const PAGES = 128;

test(`${GUESTS} guests that hand over in the same moment are all served`, {
  skip: skipUnlessUserfaultfd,
}, async (t) => {
  const folder = mkdtempSync(join(tmpdir(), "minorfault-burst-"));
  const image = join(folder, "memory");
  writeFileSync(
    image,
    Uint32Array.from({ length: (PAGES * PAGE_SIZE) / 4 }, (_, index) => index * 2654435761),
  );
  const images = [{ name: "it", source: { url: image } }];
  const dismissGuard = guardServer(join(folder, "run"), folder);
  const server = startServer({ folder: join(folder, "run"), images, control: { logLevel: "silent" } });
  const system = new KernelSystem();
  const content = new ImageContent(image);
  t.after(async () => {
    system.close();
    content.close();
    server.stop();
    await server.ended;
    dismissGuard();
    rmSync(folder, { recursive: true, force: true });
  });
  await server.ready;
  const socket = join(folder, "run", "images", "it.sock");
  const options = { socket, regions: PAGES * PAGE_SIZE, image: content, system, handOver: false };
  const guests = Array.from({ length: GUESTS }, () => startVmm(options));
  const walks = guests.map((vmm, seed) => {
    vmm.handOver();
    return vmm.touch({ shuffle: seed });
  });
  for (const { wrong } of await Promise.all(walks)) assert.deepEqual(wrong, []);
});
