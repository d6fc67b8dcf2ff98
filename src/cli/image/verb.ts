// What all verbs of `minorfault image` have in common: --json and --quiet, progress, Ctrl-C, stores that are closed.

import { existsSync } from "node:fs";
import { constants } from "node:os";
import { isAbsolute } from "node:path";
import { InvalidArgumentError } from "@commander-js/extra-typings";
import { MinorfaultError } from "../../base/errors.ts";
import { type ObjectStore, openStore, splitImageUrl } from "../../source/index.ts";
import { type ByteProgress, byteProgress, NO_PROGRESS } from "../byte-progress.ts";
import { endOnSignals } from "../ending.ts";

export interface Manner {
  readonly json?: true | undefined;
  readonly quiet?: true | undefined;
}

/** What a verb needs of a store: to be there already, or to take what is written. */
export type Need = "to be there" | "to write";

export interface Work {
  readonly signal: AbortSignal;
  /** A bar, or nothing with --json and --quiet. */
  progress(label: string): ByteProgress;
  /** Closed when the verb has ended. */
  store(url: string, need?: Need): Promise<ObjectStore>;
  /** The store of an image and its name in it. */
  image(url: string, need?: Need): Promise<{ store: ObjectStore; name: string }>;
}

export interface Outcome {
  /** What --json prints. */
  readonly json: unknown;
  /** What is printed otherwise. */
  readonly text: string;
  readonly exitCode?: number;
}

/** Runs a verb of `minorfault image`. */
export function runVerb(
  verb: string,
  manner: Manner,
  left: string,
  work: (tools: Work) => Promise<Outcome>,
): Promise<void> {
  return runCommand(`image ${verb}`, manner, left, work);
}

/** Runs a command. `left` says what an interruption leaves behind. */
export async function runCommand(
  command: string,
  manner: Manner,
  left: string,
  work: (tools: Work) => Promise<Outcome>,
): Promise<void> {
  const ending = endOnSignals();
  const bars: ByteProgress[] = [];
  const stores: ObjectStore[] = [];
  const tools: Work = {
    signal: ending.signal,
    progress(label) {
      for (const bar of bars) bar.close();
      const bar = manner.json || manner.quiet ? NO_PROGRESS : byteProgress(label);
      bars.push(bar);
      return bar;
    },
    async store(url, need) {
      const store = await openStore(url);
      stores.push(store);
      checkNeed(store, need);
      return store;
    },
    async image(url, need) {
      const { store, name } = splitImageUrl(url);
      return { store: await tools.store(store, need), name };
    },
  };
  try {
    const outcome = await work(tools);
    for (const bar of bars) bar.close();
    if (manner.json) process.stdout.write(`${JSON.stringify(outcome.json, null, 2)}\n`);
    else if (!manner.quiet && outcome.text !== "") process.stdout.write(`${outcome.text}\n`);
    process.exitCode = outcome.exitCode ?? 0;
  } catch (error) {
    for (const bar of bars) bar.close();
    if (ending.by === undefined) throw error;
    process.stderr.write(`minorfault ${command}: ended by ${ending.by}, ${left}\n`);
    process.exitCode = 128 + constants.signals[ending.by];
  } finally {
    ending.close();
    await Promise.all(stores.map((store) => store.close()));
  }
}

/** Said at once, and not by whatever goes wrong first. */
function checkNeed({ url }: ObjectStore, need: Need | undefined): void {
  if (need === "to write" && /^https?:/i.test(url)) {
    throw new MinorfaultError("ERR_STORE_READ_ONLY", `${url} is a web server, which is only read`);
  }
  if (need === "to be there" && isAbsolute(url) && !existsSync(url)) {
    throw new MinorfaultError("ERR_SOURCE_MISSING", `There is no store ${url}`, {
      hint: "A store is the folder above packs and manifests",
    });
  }
}

/** SHA-256 of a manifest, as an option. */
export function parseDigest(text: string): string {
  if (/^[0-9a-f]{64}$/i.test(text)) return text.toLowerCase();
  throw new InvalidArgumentError(
    "A SHA-256 has 64 hexadecimal digits; inspect --json says that of an image.",
  );
}

/** "name=value" options, collected. */
export function collect(text: string, before: readonly string[] | undefined): string[] {
  return [...(before ?? []), text];
}

export const UNTOUCHED = "the store is as it was";
