// The process that serves, or would: it is born knowing everything, gets warm, and waits for its turn.
//
//   main thread      links, hand-overs, the table of guests, the control API
//   one thread       serves the faults of all guests (src/pager/host.ts)
//   one an image     fetches
//   one thread       waits for descriptors to be readable

import { openPagerHost } from "../pager/index.ts";
import type { PreparedControl } from "./control/index.ts";
import { standIn } from "./control/stand-in.ts";
import { Crew } from "./crew.ts";
import { exitAtOnce } from "./exit.ts";
import { report } from "./front-pipe.ts";
import { Readiness } from "./readiness.ts";
import { Guests } from "./table.ts";
import { Tally } from "./tally.ts";
import { BATON_ID, CONFIG_ID, CONTROL_ID, COUNTERS_ID, configOf } from "./texts.ts";

const [folder = "."] = process.argv.slice(2);
exitAtOnce();

// From a terminal, by accident: the one who started the server says what is meant.
for (const signal of ["SIGINT", "SIGHUP"] as const) process.on(signal, () => undefined);

const readiness = new Readiness();
let table: Guests | undefined;
let control: Promise<PreparedControl> | undefined;
let isPrepared = false;
let adoption: Promise<void> | undefined;
let isComplete: () => void;
/** Resolves when everything has arrived that was said by or to those who served before. */
const complete = new Promise<void>((resolve) => {
  isComplete = resolve;
});

const crew = new Crew(folder, readiness, {
  onSynced() {
    if (isPrepared) return;
    isPrepared = true;
    prepare().catch(fail);
  },
  onComplete: () => isComplete(),
  onServe(why) {
    adoption = serve(why);
    adoption.catch(fail);
  },
  onEntry(entry) {
    // In their order: what comes late is about guests that are being adopted.
    adoption = adoption?.then(() => table!.take(entry));
    adoption?.catch(fail);
  },
  onKeeper(pid, why) {
    tally().count("keepers");
    table?.emit("keeper", { pid, why });
  },
  onSpare(pid) {
    report({ event: "spare", pid });
    table?.emit("spare", { pid });
  },
});

process.on("SIGTERM", () => {
  if (crew.isServing) table?.shutdown().catch(fail);
});

let counters: Tally | undefined;
function tally(): Tally {
  counters ??= new Tally(crew.ledger.get(COUNTERS_ID)!.descriptors[0]!);
  return counters;
}

/** After a takeover those who wait come first. */
const READY_AFTER_MS = 2000;

async function prepare(): Promise<void> {
  const config = configOf(crew.ledger.get(CONFIG_ID)!);
  if (crew.ledger.get(BATON_ID) === undefined) throw new Error("The ledger has no baton");
  const placement = config.placement ?? crew.placement;
  // How many there may be is the table's to say, whose limits change while it runs; whoever is there is taken over in any case.
  const guestsMax = Number.MAX_SAFE_INTEGER;
  const host = await openPagerHost(placement === undefined ? { guestsMax } : { placement, guestsMax });
  table = new Guests(crew, host, readiness, tally(), config);
  const warm = table.prepare();
  // Should nobody serve by now, guests that wait do not wait for what could be done ahead.
  crew.standBy();
  await warm;
  // What goes wrong with it is told when it is opened.
  if (!crew.isServing) await prepareControl().catch(() => undefined);
  crew.tellReady();
}

/** What it takes is loaded only now: whoever is started because nobody serves has to be soon. */
async function prepareControl(): Promise<PreparedControl> {
  control ??= import("./control/index.ts").then((module) =>
    module.prepareControl(table!, configOf(crew.ledger.get(CONFIG_ID)!)),
  );
  try {
    return await control;
  } catch (error) {
    // What was in its way ahead may have gone by the time it is to be opened.
    control = undefined;
    throw error;
  }
}

async function serve(why: string): Promise<void> {
  const began = performance.now();
  const guests = await table!.adopt();
  const ms = performance.now() - began;
  if (why !== "the server has started") tally().count("takeovers");
  report({ event: "serving", pid: process.pid, guests, ms, why });
  table!.emit("takeover", { guests, ms, why });
  crew.accepts = true;
  // A hand-over that our predecessor has booked must not be looked at again.
  await complete;
  // Nor can a change of the configuration come any more; the one that we were born with may be older.
  table!.open(configOf(crew.ledger.get(CONFIG_ID)!));
  const socket = crew.ledger.get(CONTROL_ID)?.descriptors[0];
  if (socket !== undefined) void operate(socket);
  if (guests === 0) table!.getReady();
  else setTimeout(() => table!.getReady(), READY_AFTER_MS).unref();
}

/** Whatever becomes of the control API, guests are served. */
async function operate(socket: number): Promise<void> {
  try {
    const prepared = await prepareControl();
    await prepared.open(socket);
  } catch (error) {
    const message = `The control API does not work: ${error instanceof Error ? error.message : error}`;
    report({ event: "error", code: "ERR_BUG", message });
    standIn(socket, message);
  }
}

/** Somebody else has all that we had. */
function fail(error: unknown): void {
  const message = error instanceof Error ? (error.stack ?? error.message) : String(error);
  report({ event: "error", code: "ERR_BUG", message: `process ${process.pid}: ${message}` });
  process.exit(70);
}
