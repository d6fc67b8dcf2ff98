// A destination that is no QEMU, in a thread of its own: asks for pages one after the other, at random, and notes how long
// each took to come. What a guest waits for a page, without the noise of an emulated processor.

import { once } from "node:events";
import { createServer } from "node:net";
import { parentPort, workerData } from "node:worker_threads";
import { Random } from "../src/base/random.ts";
import { encodeReturnMessage, StreamReader } from "../src/guest/qemu/index.ts";

export interface WaiterOrder {
  readonly path: string;
  readonly block: string;
  readonly pages: number;
  readonly requests: number;
  readonly seed: number;
  /** Whether pages will come that nobody asks for: nothing counts before the first one has. */
  readonly isPushed: boolean;
}

const PAGE_BYTES = 4096;
const RUNNING_PING = 3;
/** Before the clock counts: code is compiled. */
const WARM_REQUESTS = 200;

const { path, block, pages, requests, seed, isPushed } = workerData as WaiterOrder;
const server = createServer();
server.listen(path);
await once(server, "listening");
parentPort?.postMessage("listening");
const [socket] = await once(server, "connection");
const reader = new StreamReader({ payload: false });
const random = new Random(seed);
const come = new Uint8Array(pages);
const waits: number[] = [];
let blocks: readonly string[] = [];
let awaited = -1;
let askedAt = 0;
let asked = 0;
let isUnderWay = !isPushed;

socket.on("error", () => {});
socket.on("data", (bytes: Uint8Array) => {
  reader.push(Uint8Array.from(bytes));
  for (let event = reader.read(); event !== undefined; event = reader.read()) {
    if (event.kind === "blocks") blocks = event.blocks.map(({ name }) => name);
    else if (event.kind === "page" || event.kind === "zero") {
      if (blocks[event.block] !== block) continue;
      come[event.page] = 1;
      if (event.page !== awaited) {
        isUnderWay = true;
        continue;
      }
      if (isUnderWay && asked > WARM_REQUESTS) waits.push((performance.now() - askedAt) * 1000);
      ask();
    } else if (event.kind === "command" && event.command.name === "ping") {
      socket.write(encodeReturnMessage({ kind: "pong", value: event.command.value }));
    } else if (event.kind === "command" && event.command.name === "packaged") {
      socket.write(encodeReturnMessage({ kind: "pong", value: RUNNING_PING }));
      ask();
    } else if (event.kind === "end") finish();
  }
});

function ask(): void {
  awaited = -1;
  for (let tries = 0; tries < 1000 && awaited < 0; tries++) {
    const page = random.below(pages);
    if (come[page] === 0) awaited = page;
  }
  if (awaited < 0 || waits.length === requests) finish();
  else {
    asked++;
    askedAt = performance.now();
    socket.write(
      encodeReturnMessage({ kind: "request", block, start: awaited * PAGE_BYTES, byteLength: PAGE_BYTES }),
    );
  }
}

function finish(): void {
  parentPort?.postMessage(waits);
  socket.destroy();
  server.close();
}
