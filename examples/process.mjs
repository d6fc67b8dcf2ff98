// Another process's memory, paged by a pager from a file: on the kernel where that is allowed.
//
//   node examples/process.mjs

import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { openGuestHost, startPager } from "minorfault";

const PAGE = 4096;
const folder = mkdtempSync(join(tmpdir(), "minorfault-example-"));
const file = join(folder, "image");
writeFileSync(file, Buffer.concat(Array.from({ length: 256 }, (_, page) => Buffer.alloc(PAGE, page))));

const host = openGuestHost("kernel");
const guest = host.spawn();
const uffd = guest.openUserfaultfd();
const start = guest.map(256 * PAGE);
uffd.register(start, 256 * PAGE, { missing: true });

// The userfaultfd is a descriptor of that process; the pager wants one of ours.
const pager = await startPager({
  descriptor: guest.process.descriptor(uffd.fd),
  regions: [{ start, byteLength: 256 * PAGE, imageOffset: 0 }],
  image: { path: file },
});
console.log(`page 77 of the guest begins with ${await guest.load(start + 77 * PAGE)}`);
console.log(
  `${pager.statistics().faults} fault, ${pager.statistics().bytesInstalled / PAGE} pages installed`,
);
await pager.close();
host.close();
rmSync(folder, { recursive: true });
