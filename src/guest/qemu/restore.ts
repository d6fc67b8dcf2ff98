// Starts a machine from its image inside a QEMU that waits for one (`-incoming`), before its memory has come.
//
//   0 ── connect ── device state ── RUN ── working set ───────── the rest ───────── QEMU stands on its own
//                                    │  requests first, at any time
//                                    └ the guest runs from here on
//
// First run: every page that the guest asks for is noted, and nothing else is sent until the guest rests, which gives the
// working set. From the second run on that goes ahead of the requests.
//
// A connection that breaks while the machine runs costs nothing: QEMU waits (postcopy-paused), and whoever comes next,
// this process or another one (resume.ts), is told by QEMU which pages it has.

import { setImmediate as nextTurn } from "node:timers/promises";
import { MinorfaultError } from "../../base/errors.ts";
import type { Image, ReadFirst, WorkingSetRun } from "../../image/index.ts";
import { pause, Recording } from "./recording.ts";
import { ATTACHMENT, type RestorableMachine, readMachine } from "./saved-machine.ts";
import type { SourceSession } from "./source-session.ts";
import { PAGE_BYTES } from "./stream-format.ts";
import {
  type Connect,
  openSession,
  type TransferOptions,
  type TransferReport,
  transfer,
} from "./transfer.ts";

/** What a recorded working set is called in its image. */
export const WORKING_SET = "start";

/** What a restore reads of an image before anything else: for `openImage`. `replay` as in `RestoreOptions`. */
export function readFirst(replay?: string | false): ReadFirst {
  const { machine, configuration, devices } = ATTACHMENT;
  const attachments = [machine, configuration, devices];
  return replay === false ? { attachments } : { attachments, workingSet: replay ?? WORKING_SET };
}

/** Pages of a working set that leave in one system call, and before requests are looked at: some hundred microseconds. */
const TURN_PAGES = 32;
/** A guest that has just asked for a page is left alone with the rest for so long, */
const QUIET_MS = 20;
/** but not for longer than this. */
const QUIET_MS_MAX = 500;

export interface RestoreOptions extends TransferOptions {
  readonly connect: Connect;
  /** As `readMachine` gives it; default: it is read. */
  readonly machine?: RestorableMachine;
  /** The working set that goes ahead; default "start" if the image has it. False: none. */
  readonly replay?: string | false;
  /** Whether the pages that are asked for first are recorded; default: when none is replayed. */
  readonly record?: boolean;
  /** How long; default until the guest rests. */
  readonly recordMs?: number;
  /** Whether a requested page brings the others of its chunk along; default true, except while recording. */
  readonly neighbours?: boolean;
  /** Whether the rest follows by itself; default true. Without it the machine depends on this process for good. */
  readonly push?: boolean;
}

export interface RestoreReport extends TransferReport {
  /** Milliseconds until the guest ran. */
  readonly runningMs: number;
  /** The working set that went ahead, how many milliseconds it took until it had been sent, and why not all of it was. */
  readonly replayed?: { readonly name: string; readonly ms: number; readonly error?: string };
  /** Offsets of the pages that the guest asked for first, in the image's flat space, if they were recorded. */
  readonly touched?: readonly number[];
}

export async function restoreMachine(options: RestoreOptions): Promise<RestoreReport> {
  const startedAt = performance.now();
  const { image, neighbours } = options;
  const replay = workingSetOf(image, options.replay);
  const recording = (options.record ?? replay === undefined) ? new Recording() : undefined;
  const connecting = options.connect(options.signal ?? new AbortController().signal);
  const reading = options.machine ?? readMachine(image, options.signal);
  const runs = replay && readAhead(image, replay);
  const [machine, socket] = await Promise.all([reading, connecting]).catch((error: unknown) => {
    // A QEMU that is connected to takes nobody else.
    void connecting.then((opened) => opened.destroy()).catch(() => {});
    throw error;
  });
  let runningMs = Number.NaN;
  let replayedMs = Number.NaN;
  let replayError: string | undefined;
  let hasRun = (): void => {};
  const running = new Promise<void>((resolve) => {
    hasRun = resolve;
  });
  const session = openSession(options, machine, {
    onTouched: (range) => recording?.add(range),
    onState: (state) => {
      if (state !== "running") return;
      if (Number.isNaN(runningMs)) runningMs = performance.now() - startedAt;
      hasRun();
    },
  });
  const report = await transfer(options, session, socket, async (over) => {
    over.addEventListener("abort", hasRun);
    session.sendsNeighbours = neighbours ?? recording === undefined;
    session.start();
    if (runs) {
      // What its devices need until it runs is a page or two: where these are at hand, or the first ones of the set, the
      // machine is not kept waiting by the decoding of others.
      if (image.isAtHand) await running;
      // One that is damaged costs time and nothing else: what it held is asked for.
      await replayInto(session, runs, running, over).catch((error: unknown) => {
        replayError = error instanceof Error ? error.message : String(error);
      });
      replayedMs = performance.now() - startedAt;
    }
    await running;
    if (recording === undefined) await quiet(() => session.touchedAt, over);
    else await recording.end(options.recordMs, over);
    session.sendsNeighbours = neighbours ?? true;
    session.pushes = options.push ?? true;
  });
  return {
    ...report,
    runningMs,
    ...(replay !== undefined && {
      replayed: { name: replay, ms: replayedMs, ...(replayError !== undefined && { error: replayError }) },
    }),
    ...(recording !== undefined && { touched: recording.offsets() }),
  };
}

/**
 * A working set, the first piece of which is on its way at once if that takes time, and is waited for meanwhile. That of
 * a store at hand would be decoded while the machine waits to be started.
 */
function readAhead(image: Image, name: string): AsyncIterable<WorkingSetRun> {
  const runs = image.readWorkingSet(name)[Symbol.asyncIterator]();
  const first = image.isAtHand ? undefined : runs.next();
  // Whoever asks for it is told.
  first?.catch(() => {});
  return {
    async *[Symbol.asyncIterator]() {
      for (let run = await (first ?? runs.next()); !run.done; run = await runs.next()) yield run.value;
    },
  };
}

/**
 * Gives the working set in the order in which it was touched, without getting far ahead of the socket: its first pages at
 * once, the others when the machine runs.
 */
async function replayInto(
  session: SourceSession,
  runs: AsyncIterable<WorkingSetRun>,
  running: Promise<void>,
  over: AbortSignal,
): Promise<void> {
  let unheard = 0;
  for await (const { offset, bytes, isZero } of runs) {
    if (over.aborted) return;
    const count = bytes.byteLength / PAGE_BYTES;
    session.send(offset / PAGE_BYTES, count, isZero ? undefined : bytes);
    unheard += count;
    if (unheard < TURN_PAGES) continue;
    unheard = 0;
    // A local image and a socket with room make nobody wait: requests would not be heard before the end.
    await nextTurn();
    await running;
    await session.drained();
  }
}

/** Waits until the guest has what it needs for the moment: what follows takes processor time from it. */
async function quiet(touchedAt: () => number, over: AbortSignal): Promise<void> {
  const until = performance.now() + QUIET_MS_MAX;
  while (!over.aborted) {
    const now = performance.now();
    const rest = Math.min(until, touchedAt() + QUIET_MS) - now;
    if (rest <= 0) return;
    await pause(rest, over);
  }
}

function workingSetOf(image: Image, wanted: string | false | undefined): string | undefined {
  if (wanted === false) return undefined;
  const isThere = image.workingSets().includes(wanted ?? WORKING_SET);
  if (isThere || wanted === undefined) return isThere ? (wanted ?? WORKING_SET) : undefined;
  throw new MinorfaultError("ERR_SOURCE_MISSING", `${image.name} has no working set ${wanted}`, {
    hint: "`minorfault image working-set` lists those that it has",
  });
}
