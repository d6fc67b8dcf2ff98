// npm run chaos -- kill [--count N] [--seed S]

import { parseArgs } from "node:util";
import { chaosKill, DEADLINE_MS } from "./kill.ts";

const HELP = `npm run chaos -- kill [--count N] [--seed S]

Kills the processes of a page server N times (default 1000), at random moments and at each of its labelled steps, while
machines are restored from it, store, give pages away, and hash what they have. No page may be wrong, and no machine may
wait longer than ${DEADLINE_MS / 1000} s for one; the longest waits are printed, with the deaths before each. The moments are the machine's, so
the same seed does about the same.`;

/** What a fault's bytes are waited for where nothing else is said: `minorfault serve --deadline`. */
const FAULT_MS = 1000;

async function main(): Promise<number> {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      count: { type: "string", default: "1000" },
      seed: { type: "string" },
      help: { type: "boolean", default: false },
    },
  });
  const count = Number(values.count);
  const seed = Number(values.seed ?? Math.floor(Math.random() * 2 ** 31));
  if (values.help) {
    console.log(HELP);
    return 0;
  }
  if (positionals[0] !== "kill" || !Number.isInteger(count) || !Number.isInteger(seed)) {
    console.error(HELP);
    return 2;
  }
  const began = performance.now();
  console.log(`kill: ${count} deaths, seed ${seed}`);
  let toldAt = began;
  const report = await chaosKill(count, seed, (done) => {
    if (performance.now() - toldAt < 5000) return;
    toldAt = performance.now();
    console.error(`${done} of ${count}`);
  });
  const deaths = Object.entries(report.deaths).sort(([, a], [, b]) => b - a);
  const died = deaths.reduce((sum, [, times]) => sum + times, 0);
  for (const [what, times] of deaths) console.log(`  ${String(times).padStart(6)} ${what}`);
  const { takeovers, machines, pagesChecked, lostConnections, longestWaitMs, longWaits, failures } = report;
  console.log(`${takeovers} takeovers, ${machines} machines, ${pagesChecked} pages checked`);
  const late = longWaits.filter(({ ms }) => ms > FAULT_MS).length;
  const beyond = `${late} longer than a fault's default deadline of ${FAULT_MS / 1000} s`;
  console.log(
    `longest wait for a page ${longestWaitMs.toFixed(0)} ms, ${beyond}; ${lostConnections} connections lost`,
  );
  for (const { ms, before } of longWaits.toSorted((a, b) => b.ms - a.ms).slice(0, 20)) {
    console.log(`    ${ms.toFixed(0)} ms after ${before.join(", ")}`);
  }
  for (const failure of failures.slice(0, 20)) console.log(`  FAILED ${failure}`);
  const seconds = ((performance.now() - began) / 1000).toFixed(0);
  const missing = died < count ? `, stopped ${count - died} short of ${count}` : "";
  console.log(`${died} deaths in ${seconds} s${missing}: ${failures.length} went wrong`);
  return failures.length === 0 ? 0 : 1;
}

process.exitCode = await main();
