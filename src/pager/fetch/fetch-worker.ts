// The thread that fetches: opens the source, and does what the serving thread asks for.
//
// It has an event loop for sources that wait for a network. While everything is answered at once (a local file, a local
// image) it stays out of it: asleep in Atomics.wait it is woken in a few microseconds.
//
// It uses no thread of libuv's pool: all of those may be standing in faults that this thread is about to end.

import { type MessagePort, parentPort, receiveMessageOnPort } from "node:worker_threads";
import { HUGE_PAGE_SIZE, MADV } from "../../abi/memory.ts";
import { wordsFor } from "../../base/bitmap.ts";
import { MinorfaultError } from "../../base/errors.ts";
import { roundUp } from "../../base/range.ts";
import { affinity, expectRead, isCached, local, mmap, threadId } from "../../linux/index.ts";
import { lendReadAhead } from "../../source/read-ahead.ts";
import { noteOf } from "../notes.ts";
import { orderOf } from "../thread-order.ts";
import { FetchAgent } from "./agent.ts";
import { AheadFiller, aheadUnits, makeAheadWords } from "./ahead.ts";
import { REPLAY_BYTES, REPLAY_SLOTS } from "./link.ts";
import { GATHERED_MAX, openUnits, type UnitReader } from "./opened-source.ts";
import { type FetchWorkOrder, type OpenedMessage, WIRE, type WireNews, type WireRequest } from "./order.ts";
import { makePaneWords, PANE_UNITS, PANES, PaneFiller } from "./panes.ts";
import { ProofsLeft } from "./proving.ts";
import { ReplaySlots } from "./replay-slots.ts";
import { Replayer } from "./replayer.ts";
import { slotsAt } from "./slots.ts";
import { Sweep } from "./sweep.ts";

/** LIMIT: units whose index is looked through at the start, for holes; of more, as they are fetched. */
const LEARNT_UNITS_MAX = 65_536;
/** LIMIT: units of this machine's files that are asked for, for each read at once: so that this thread has always something to do. */
const AT_HAND_MAX = 2;
/** How often who waits for the serving thread looks whether all is over. */
const LOOK_MS = 100;
/**
 * LIMIT: how long this thread stays awake after it has filled a unit of a pane: about as long as a guest takes to go through
 * a window. To be woken for the next one costs both threads more than the reading of a unit.
 */
const LINGER_MS = 0.3;

const bell = local.share(4096);
lendReadAhead({ expect: expectRead, isCached });
/** Another one for the thread that serves, which has us kept off its own. */
const hasOtherCpus = affinity(local).length > 1;
/** What this thread works for: first for those that are made up. */
let order: FetchWorkOrder;
let words: Int32Array;
let port: MessagePort;
/** Requests that have been looked for. */
let heard = 0;

const given = await orderOf<FetchWorkOrder>([], [rehearse]);
try {
  await run(given, (message) => parentPort?.postMessage(message));
} catch (error) {
  parentPort?.postMessage({ kind: "failed", error: noteOf(error) } satisfies OpenedMessage);
  given.port.close();
}

async function run(one: FetchWorkOrder, say: (message: OpenedMessage) => void): Promise<void> {
  order = one;
  ({ words, port } = one);
  heard = 0;
  const reader = await openUnits(order.source, order.unitBytesMin, order.replay);
  const { name, byteLength, unitBytes, identity, content, image } = reader;
  // Far away, units are gathered to longer reads: as many reads need more units.
  const fetchesMax = order.fetchesMax * (reader.isLocal ? AT_HAND_MAX : GATHERED_MAX);
  const slots = Math.max(order.slots, fetchesMax + (fetchesMax >> 2));
  const paneAt = slots * unitBytes;
  const aheadSlots = aheadUnits(unitBytes);
  const replayAt = roundUp(paneAt + (PANES * PANE_UNITS + aheadSlots) * unitBytes, HUGE_PAGE_SIZE);
  const { staging, stagingBytes, keptSlots } = mapStaging(
    replayAt + REPLAY_SLOTS * REPLAY_BYTES,
    image === undefined ? 0 : order.keptSlots,
  );
  const slotCount = REPLAY_SLOTS + keptSlots;
  const replayStaging = staging + replayAt;
  const replaySlots = slotsAt(replayStaging, REPLAY_BYTES);
  const advise = (advice: number, first: number, count: number): void =>
    void local.call("madvise", replayStaging + first * REPLAY_BYTES, count * REPLAY_BYTES, advice);
  // All of it is written once: in small pages that would take longer than hashing it. Refused it works as well.
  advise(MADV.HUGEPAGE, 0, slotCount);
  const units = Math.ceil(byteLength / unitBytes);
  const holes = new Uint32Array(new SharedArrayBuffer(wordsFor(units) * 4));
  const panes = makePaneWords();
  const ahead = makeAheadWords(aheadSlots);
  const agent = new FetchAgent({
    reader,
    slots: slotsAt(staging, unitBytes, slots),
    holes,
    readsMax: order.fetchesMax,
    tell,
  });
  const sweep = order.sweeps ? new Sweep({ reader, words }) : undefined;
  const paneSlots = slotsAt(staging + paneAt, unitBytes);
  const filler = new PaneFiller(panes, (unit, slot) => reader.readSync(unit, paneSlots(slot)));
  const aheadSlot = PANES * PANE_UNITS;
  const aheadFiller = new AheadFiller(ahead, (unit, slot) =>
    reader.readSync(unit, paneSlots(aheadSlot + slot)),
  );
  const fills = image !== undefined && reader.isLocal && hasOtherCpus;
  const rest = (): void => {
    filler.listens = fills;
    aheadFiller.listens = fills;
    const isEnough = () => agent.running > 0 || wanted.length > 0;
    serve(agent, isEnough, () => {
      const isFilling = filler.fill() || aheadFiller.fill();
      const restMs = sweep?.step();
      return isFilling ? 0 : restMs;
    });
    filler.listens = false;
    aheadFiller.listens = false;
  };
  const pool = new ReplaySlots({
    count: slotCount,
    transitMax: REPLAY_SLOTS,
    giveBack: (first, count) => advise(MADV.DONTNEED, first, count),
  });
  const proofs = new ProofsLeft(words);
  const replayerOf = (workingSet: string): Replayer | undefined =>
    image &&
    new Replayer({
      image,
      workingSet,
      slots: replaySlots,
      pool,
      proofs,
      tell,
      serve: (waits) => serve(agent, () => !waits || pool.isAvailable),
    });
  const replaying = workingSetOf(reader);
  /** Before anything else: it sets the disk to work. */
  let replayer = replaying === undefined ? undefined : replayerOf(replaying);
  agent.learnFirst(Math.min(units, LEARNT_UNITS_MAX));
  const workingSets = image?.workingSets() ?? [];
  const opened = {
    name,
    byteLength,
    unitBytes,
    identity,
    content,
    slots,
    fetchesMax,
    runMax: reader.isLocal ? 1 : GATHERED_MAX,
    tid: threadId(local),
    staging,
    replayStaging,
    keptSlots,
    stagingBytes,
    paneStaging: staging + paneAt,
    panes,
    ahead,
    holes,
    workingSets,
    replaying,
  };
  say({ kind: "opened", opened });

  /** Working sets that are still to be replayed. */
  const wanted: string[] = [];
  let isStopped = false;
  const stop = async (): Promise<void> => {
    if (isStopped) return;
    isStopped = true;
    agent.abort();
    replayer?.stop();
    port.close();
    await reader.close();
  };
  port.on("message", (request: WireRequest) => {
    agent.handle(request);
    if (isOver()) void stop();
    else if (agent.running === 0 && agent.isLocal && replayer === undefined) rest();
    while (agent.work());
    if (isOver()) void stop();
    replayer ??= next();
    void replayAll();
  });
  port.on("close", () => void stop());
  agent.onFree = (slot) => {
    pool.free(slot);
    if (replayer === undefined) pool.settle();
  };
  agent.onKeep = (slot) => pool.keep(slot);
  agent.onFill = () => sweep?.want();
  if (image !== undefined) agent.onReplay = (workingSet) => void wanted.push(workingSet);

  /** One after the other. */
  let isReplaying = false;
  const replayAll = async (): Promise<void> => {
    if (isReplaying) return;
    isReplaying = true;
    for (; replayer !== undefined && !isOver(); replayer = next()) await replayer.run();
    isReplaying = false;
    if (isOver()) await stop();
    else pool.settle();
  };
  const next = (): Replayer | undefined => {
    const workingSet = wanted.shift();
    return workingSet === undefined ? undefined : replayerOf(workingSet);
  };
  await replayAll();
  while (!isOver() && agent.isLocal && agent.running === 0) {
    rest();
    replayer ??= next();
    await replayAll();
  }
}

async function rehearse(): Promise<void> {
  const { rehearseFetching, rehearseFar } = await import("./rehearsal.ts");
  try {
    await rehearseFar(run);
  } catch {
    // There is no room for it: the guest's first faults are the rehearsal.
  }
  await rehearseFetching();
}

/**
 * Whoever has started this thread unmaps it when it has ended. A system that is strict about what it promises may not have so
 * much to promise: then nothing is kept.
 */
function mapStaging(
  byteLength: number,
  keptSlots: number,
): { staging: number; stagingBytes: number; keptSlots: number } {
  const stagingBytes = byteLength + keptSlots * REPLAY_BYTES;
  try {
    return { staging: mmap(local, stagingBytes), stagingBytes, keptSlots };
  } catch {
    return { staging: mmap(local, byteLength), stagingBytes: byteLength, keptSlots: 0 };
  }
}

/** The working set to replay. */
function workingSetOf({ image, name }: UnitReader): string | undefined {
  const { replay } = order;
  const sets = image?.workingSets() ?? [];
  if (typeof replay === "boolean") return replay ? sets[0] : undefined;
  if (sets.includes(replay)) return replay;
  throw new MinorfaultError("ERR_SOURCE_MISSING", `${name} has no working set ${replay}`);
}

function isOver(): boolean {
  return Atomics.load(words, WIRE.STOP) !== 0;
}

/**
 * Serves what is asked for until something is so, asleep in between; false: all is over. What there is to do `beside` it is
 * asked for after each unit, and answers when it is to be asked again; 0: at once, and there is likely to be more in a moment.
 */
function serve(
  agent: FetchAgent,
  isEnough: () => boolean,
  beside: () => number | undefined = () => undefined,
): boolean {
  let lingersUntil = 0;
  for (;;) {
    const rung = Atomics.load(words, WIRE.RUNG);
    if (rung !== heard) hear(agent);
    heard = rung;
    if (isOver()) return false;
    if (agent.work()) {
      beside();
      continue;
    }
    // Asked between any two runs of a replay, so the usual answer has to be cheap.
    if (isEnough()) return true;
    const restMs = beside();
    if (restMs === 0) lingersUntil = performance.now() + LINGER_MS;
    else if (!linger(rung, lingersUntil)) Atomics.wait(words, WIRE.RUNG, rung, restMs ?? LOOK_MS);
  }
}

function hear(agent: FetchAgent): void {
  for (let got = receiveMessageOnPort(port); got !== undefined; got = receiveMessageOnPort(port)) {
    agent.handle(got.message as WireRequest);
  }
}

/** Stays awake for what is asked for next; false: the time is over. */
function linger(rung: number, untilMs: number): boolean {
  while (performance.now() < untilMs) if (Atomics.load(words, WIRE.RUNG) !== rung) return true;
  return false;
}

function tell(news: WireNews): void {
  port.postMessage(news);
  Atomics.add(words, WIRE.DONE, 1);
  if (Atomics.load(words, WIRE.SLEEPING) === 1) local.call("write", order.bellFd, bell.address, 1);
}
