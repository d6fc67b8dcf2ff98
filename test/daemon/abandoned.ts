// A program that starts a server with a machine, says so, and waits: for who wants to know what is left of it.

import { PAGE_SIZE } from "../../src/abi/memory.ts";
import { Stand } from "./stand.ts";
import { startVmm } from "./vmm.ts";

const stand = await Stand.open({ pages: 16 });
const vmm = startVmm({ socket: stand.socket, regions: 16 * PAGE_SIZE, image: stand.imagePath });
await vmm.touch({ count: 1 });
console.log(JSON.stringify([...stand.processes, vmm.process.pid]));
setInterval(() => undefined, 1000);
