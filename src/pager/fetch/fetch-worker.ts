// The thread that fetches: opens the source, and does what the serving thread asks for.
//
// It has an event loop for sources that wait for a network. While everything is answered at once (a local file, a local
// image) it stays out of it: asleep in Atomics.wait it is woken in a few microseconds.
//
// It uses no thread of libuv's pool: all of those may be standing in faults that this thread is about to end.

import { parentPort, receiveMessageOnPort, workerData } from "node:worker_threads";
import { wordsFor } from "../../base/bitmap.ts";
import { local, mapMemory } from "../../linux/index.ts";
import { noteOf } from "../notes.ts";
import { FetchAgent } from "./agent.ts";
import { openUnits } from "./opened-source.ts";
import { type FetchWorkOrder, type OpenedMessage, WIRE, type WireEnd, type WireRequest } from "./order.ts";

/** LIMIT: units whose index is looked through at the start, for holes; of more, as they are fetched. */
const LEARNT_UNITS_MAX = 65_536;

const order = workerData as FetchWorkOrder;
const { words, port, bellFd } = order;
const bell = local.share(4096);

try {
  await run();
} catch (error) {
  parentPort?.postMessage({ kind: "failed", error: noteOf(error) } satisfies OpenedMessage);
  port.close();
}

async function run(): Promise<void> {
  const reader = await openUnits(order.source, order.unitBytesMin);
  const { name, byteLength, unitBytes } = reader;
  const staging = mapMemory(order.slots * unitBytes);
  const units = Math.ceil(byteLength / unitBytes);
  const holes = new Uint32Array(new SharedArrayBuffer(wordsFor(units) * 4));
  const agent = new FetchAgent({ reader, staging: staging.bytes, holes, tell });
  agent.learnFirst(Math.min(units, LEARNT_UNITS_MAX));
  const workingSets = reader.image?.workingSets() ?? [];
  const opened = {
    name,
    byteLength,
    unitBytes,
    staging: staging.address,
    stagingBytes: staging.byteLength,
    holes,
    workingSets,
  };
  parentPort?.postMessage({ kind: "opened", opened } satisfies OpenedMessage);

  const stop = async (): Promise<void> => {
    agent.abort();
    port.close();
    await reader.close();
  };
  port.on("message", (request: WireRequest) => {
    agent.handle(request);
    if (isLocal()) sleep(agent);
    if (Atomics.load(words, WIRE.STOP) !== 0) void stop();
  });
  port.on("close", () => void stop());

  function isLocal(): boolean {
    return agent.running === 0 && agent.isLocal;
  }
}

/** Serves from outside the event loop until a read has to wait, or the end. */
function sleep(agent: FetchAgent): void {
  for (;;) {
    const rung = Atomics.load(words, WIRE.RUNG);
    for (let got = receiveMessageOnPort(port); got !== undefined; got = receiveMessageOnPort(port)) {
      agent.handle(got.message as WireRequest);
    }
    if (agent.running > 0 || Atomics.load(words, WIRE.STOP) !== 0) return;
    Atomics.wait(words, WIRE.RUNG, rung);
  }
}

function tell(end: WireEnd): void {
  port.postMessage(end);
  Atomics.add(words, WIRE.DONE, 1);
  if (Atomics.load(words, WIRE.SLEEPING) === 1) local.call("write", bellFd, bell.address, 1);
}
