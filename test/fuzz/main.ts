// npm run fuzz -- image [--count N] [--seed S]

import { parseArgs } from "node:util";
import { fuzzImages } from "./image.ts";

const HELP = `npm run fuzz -- image [--count N] [--seed S]

Corrupts a store at random, N times (default 100000), and reads its image each time: the bytes must be right, or there
must be an error of the catalogue. The same seed does the same.`;

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
  if (positionals[0] !== "image" || !Number.isInteger(count) || !Number.isInteger(seed)) {
    console.error(HELP);
    return 2;
  }
  const began = performance.now();
  console.log(`image: ${count} corruptions, seed ${seed}`);
  let toldAt = began;
  const { outcomes, codes, failures } = await fuzzImages(count, seed, (done) => {
    if (performance.now() - toldAt < 5000) return;
    toldAt = performance.now();
    console.error(`${done} of ${count}`);
  });
  for (const [name, { refused, harmless }] of Object.entries(outcomes)) {
    console.log(
      `  ${name.padEnd(18)} ${String(refused).padStart(7)} refused ${String(harmless).padStart(7)} harmless`,
    );
  }
  for (const [code, times] of Object.entries(codes)) console.log(`  ${code.padEnd(24)} ${times}`);
  for (const failure of failures.slice(0, 20)) console.log(`  FAILED ${failure}`);
  const seconds = ((performance.now() - began) / 1000).toFixed(0);
  console.log(`${count} corruptions in ${seconds} s: ${failures.length} went wrong`);
  return failures.length === 0 ? 0 : 1;
}

process.exitCode = await main();
