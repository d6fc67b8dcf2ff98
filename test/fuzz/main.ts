// npm run fuzz -- image|server|control|qemu [--count N] [--seed S]

import { parseArgs } from "node:util";
import { openScene } from "../control/scene.ts";
import { skipUnlessUserfaultfd } from "../linux/host.ts";
import { fuzzControl } from "./control.ts";
import { fuzzImages } from "./image.ts";
import { fuzzQemu } from "./qemu.ts";
import { fuzzServer } from "./server.ts";

const HELP = `npm run fuzz -- image|server|control|qemu [--count N] [--seed S]

image    corrupts a store at random, N times (default 100000), and reads its image each time: the bytes must be right, or
         there must be an error of the catalogue
server   hands over at random, N times, to the parser and one time in a hundred to a server that runs: what is not right
         must be refused with a reason, and the server must have no more descriptors or memory afterwards; one time in
         ten it is a call of the control API instead
control  calls the control API at random, N times: each call is answered or refused with an error of the catalogue, and
         nothing is left behind
qemu     damages migration streams and return paths of QEMU, N times: each byte of one in turn, then several at random.
         Each must be read or refused with an error of the catalogue, the same way in pieces of any size

The same seed does the same.`;

type OnProgress = (done: number) => void;

async function image(count: number, seed: number, onProgress: OnProgress): Promise<readonly string[]> {
  const { outcomes, codes, failures } = await fuzzImages(count, seed, onProgress);
  print(outcomes, codes);
  return failures;
}

function print(
  outcomes: Readonly<Record<string, { readonly refused: number; readonly harmless: number }>>,
  codes: Readonly<Record<string, number>>,
): void {
  for (const [name, { refused, harmless }] of Object.entries(outcomes)) {
    console.log(
      `  ${name.padEnd(18)} ${String(refused).padStart(7)} refused ${String(harmless).padStart(7)} harmless`,
    );
  }
  for (const [code, times] of Object.entries(codes)) console.log(`  ${code.padEnd(24)} ${times}`);
}

/** One call of the control API in so many of a server's. */
const CONTROL_SHARE = 10;

async function server(all: number, seed: number, onProgress: OnProgress): Promise<readonly string[]> {
  const calls = Math.floor(all / CONTROL_SHARE);
  const wrongCalls = await control(calls, seed, onProgress);
  return [...wrongCalls, ...(await handOvers(all - calls, seed, (done) => onProgress(calls + done)))];
}

async function handOvers(count: number, seed: number, onProgress: OnProgress): Promise<readonly string[]> {
  const isPossible = skipUnlessUserfaultfd === false;
  if (!isPossible) console.log(`  The parser only: a server ${skipUnlessUserfaultfd}`);
  const { taken, refused, served, before, after, failures } = await fuzzServer(count, seed, {
    server: isPossible,
    onProgress,
  });
  for (const [reason, times] of Object.entries(refused).sort(([, a], [, b]) => b - a)) {
    console.log(`  ${String(times).padStart(8)} ${reason}`);
  }
  console.log(`  ${String(taken).padStart(8)} taken`);
  if (before !== undefined && after !== undefined) {
    const told = ({ descriptors, bytes }: typeof before): string =>
      `${descriptors} descriptors, ${(bytes / 2 ** 20).toFixed(0)} MiB`;
    console.log(`  ${served} of them to a server, which had ${told(before)} before and ${told(after)} after`);
  }
  return failures;
}

async function control(count: number, seed: number, onProgress: OnProgress): Promise<readonly string[]> {
  const ends: (() => Promise<void>)[] = [];
  const scene = await openScene({ after: (end: () => Promise<void>) => void ends.push(end) });
  const { statuses, failures, descriptors } = await fuzzControl(scene, count, seed, onProgress);
  for (const end of ends) await end();
  for (const [status, times] of Object.entries(statuses))
    console.log(`  ${String(times).padStart(8)} ${status}`);
  console.log(`  ${descriptors.before} descriptors before and ${descriptors.after} after`);
  return failures;
}

async function qemu(count: number, seed: number, onProgress: OnProgress): Promise<readonly string[]> {
  const { outcomes, codes, failures } = fuzzQemu(count, seed, onProgress);
  print(outcomes, codes);
  return failures;
}

const TARGETS = { image, server, control, qemu } as const;

async function main(): Promise<number> {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      count: { type: "string", default: "100000" },
      seed: { type: "string" },
      help: { type: "boolean", default: false },
    },
  });
  const count = Number(values.count);
  const seed = Number(values.seed ?? Math.floor(Math.random() * 2 ** 32));
  if (values.help) {
    console.log(HELP);
    return 0;
  }
  const [name = ""] = positionals;
  if (!Object.hasOwn(TARGETS, name) || !Number.isInteger(count) || !Number.isInteger(seed)) {
    console.error(HELP);
    return 2;
  }
  const began = performance.now();
  console.log(`${name}: ${count} times, seed ${seed}`);
  let toldAt = began;
  const failures = await TARGETS[name as keyof typeof TARGETS](count, seed, (done) => {
    if (performance.now() - toldAt < 5000) return;
    toldAt = performance.now();
    console.error(`${done} of ${count}`);
  });
  for (const failure of failures.slice(0, 20)) console.log(`  FAILED ${failure}`);
  const seconds = ((performance.now() - began) / 1000).toFixed(0);
  console.log(`${count} times in ${seconds} s: ${failures.length} went wrong`);
  return failures.length === 0 ? 0 : 1;
}

process.exitCode = await main();
