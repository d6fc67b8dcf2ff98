// Starts the thread that fetches, and ends it: what the owner of a pager with a source has of it.

import { MessageChannel, type MessagePort, type Worker } from "node:worker_threads";
import { MinorfaultError } from "../../base/errors.ts";
import { close, local, munmap, pipe } from "../../linux/index.ts";
import { errorOf } from "../notes.ts";
import { startThread } from "../spare-threads.ts";
import { REPLAY_BYTES } from "./link.ts";
import type { FetchOptions, PagerSource } from "./options.ts";
import {
  type FetchOrder,
  type FetchSettings,
  type FetchWorkOrder,
  makeFetchOrder,
  type OpenedMessage,
  type OpenedSource,
  WIRE,
  WIRE_WORDS,
} from "./order.ts";

const DEADLINE_MS = 1000;
const FETCHES_MAX = 16;
/** No source has smaller units. */
const UNIT_BYTES_MIN = 64 * 1024;
/** How long the end of the thread is waited for before it is ended by force. */
const STOP_MS = 500;

/** The thread that fetches, with its source open. */
export interface Remote {
  readonly order: FetchOrder;
  /** Names what has to be handed to the serving thread, not copied. */
  readonly transfer: readonly MessagePort[];
  /** When the serving thread has let go of it; `wasTaken`: it has had it. */
  close(wasTaken: boolean): Promise<void>;
}

export interface RemoteOptions {
  readonly unitBytesMin: number;
  /** The working set to replay at once. */
  readonly replay: boolean | string;
  /** Bytes to keep of what was fetched, at least. */
  readonly stagingBytes: number;
  /** Bytes of working sets that may be kept for later guests. */
  readonly keptBytes: number;
}

/** Opens the source in a thread of its own; rejects with what the source says. */
export async function openRemote(source: PagerSource, options: RemoteOptions): Promise<Remote> {
  const settings = checkFetchOptions(source);
  const { unitBytesMin, replay, stagingBytes, keptBytes } = options;
  const unitBytes = Math.max(UNIT_BYTES_MIN, unitBytesMin);
  const slots = Math.max(2 * settings.fetchesMax + 2, Math.floor(stagingBytes / unitBytes));
  const { port1, port2 } = new MessageChannel();
  const [reader, writer] = pipe();
  const words = new Int32Array(new SharedArrayBuffer(WIRE_WORDS * 4));
  const order: FetchWorkOrder = {
    source: { ...source },
    unitBytesMin,
    replay,
    slots,
    fetchesMax: settings.fetchesMax,
    sweeps: settings.backgroundRate === Number.POSITIVE_INFINITY,
    keptSlots: Math.floor(keptBytes / REPLAY_BYTES),
    words,
    port: port2,
    bellFd: writer,
  };
  const worker = startThread("fetch", order, [port2]);
  const ended = new Promise<void>((resolve) => worker.once("exit", () => resolve()));
  let opened: OpenedSource;
  try {
    opened = await openedBy(worker);
  } catch (error) {
    port1.close();
    await worker.terminate();
    close(local, reader);
    close(local, writer);
    throw error;
  }
  // A thread that has failed answers nothing: the serving thread is told, so that no fault waits for it.
  worker.on("error", () => undefined);
  void ended.then(() => {
    Atomics.store(words, WIRE.DEAD, 1);
    local.call("write", writer, local.scratch.address, 1);
    close(local, writer);
  });
  // The serving thread decides whether the process goes on.
  worker.unref();
  return {
    order: makeFetchOrder(settings, opened, { source: order.source, port: port1, words, bellFd: reader }),
    transfer: [port1],
    async close(wasTaken) {
      if (!wasTaken) {
        port1.close();
        close(local, reader);
      }
      Atomics.store(words, WIRE.STOP, 1);
      Atomics.add(words, WIRE.RUNG, 1);
      Atomics.notify(words, WIRE.RUNG);
      worker.ref();
      const force = setTimeout(() => void worker.terminate(), STOP_MS);
      await ended;
      clearTimeout(force);
      munmap(local, opened.staging, opened.stagingBytes);
    },
  };
}

/** What holds for a source; throws what is wrong with it. */
export function checkFetchOptions(source: FetchOptions): FetchSettings {
  const { deadlineMs = DEADLINE_MS, fetchesMax = FETCHES_MAX, atDeadline = "poison" } = source;
  const { backgroundBytesPerSecond: backgroundRate = Number.POSITIVE_INFINITY } = source;
  const positive = { deadlineMs, fetchesMax, backgroundBytesPerSecond: backgroundRate };
  for (const [name, value] of Object.entries(positive)) {
    if (typeof value === "number" && value > 0) continue;
    throw new MinorfaultError("ERR_OUT_OF_RANGE", `${name} must be a positive number, not ${String(value)}`);
  }
  if (!Number.isInteger(fetchesMax) || fetchesMax > 256) {
    throw new MinorfaultError(
      "ERR_OUT_OF_RANGE",
      `fetchesMax must be an integer up to 256, not ${fetchesMax}`,
    );
  }
  if (!["poison", "kill", "report"].includes(atDeadline)) {
    throw new MinorfaultError(
      "ERR_BAD_ARGUMENT",
      `atDeadline must be poison, kill or report, not ${String(atDeadline)}`,
    );
  }
  return {
    deadlineMs,
    fetchesMax,
    backgroundRate,
    expires: atDeadline !== "report",
    kills: atDeadline === "kill",
  };
}

function openedBy(worker: Worker): Promise<OpenedSource> {
  return new Promise((resolve, reject) => {
    worker.once("message", (message: OpenedMessage) => {
      if (message.kind === "opened") resolve(message.opened);
      else reject(errorOf(message.error));
    });
    worker.once("error", (error) => {
      reject(
        new MinorfaultError("ERR_BUG", `The thread that fetches failed: ${error.stack ?? error.message}`),
      );
    });
    worker.once("exit", () => reject(new MinorfaultError("ERR_CLOSED", "The thread that fetches ended")));
  });
}
