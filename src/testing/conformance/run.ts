// Runs cases on a system: a fresh process a case, the tokens it says, and how they differ from those expected.

import { O } from "../../abi/memory.ts";
import type { System } from "../../abi/system.ts";
import { MinorfaultError } from "../../base/errors.ts";
import { Ioctls } from "../../uffd/ioctls.ts";
import { Machine } from "./machine.ts";
import { expandMasks, MASKS, type Masks, masksFor } from "./masks.ts";
import type { Case } from "./parse.ts";
import { CaseProblem } from "./problem.ts";
import type { Need } from "./scope.ts";
import { perform, type Step } from "./step.ts";

/** A kernel release whose answers are expected. */
export type Profile = "linux-4.3" | "linux-6.18";

export interface RunOptions {
  /** Default linux-6.18 (and its successors, told apart by the features they answer). */
  readonly profile?: Profile;
  /** What the host lacks, with the reason: cases that need it are skipped. */
  readonly lacks?: ReadonlyMap<Need, string>;
  /** Milliseconds after which a case has failed; default 5000. */
  readonly deadlineMs?: number;
}

export interface CaseResult {
  readonly id: string;
  readonly system: System["name"];
  readonly status: "ok" | "fail" | "skip";
  readonly expected: readonly string[];
  readonly got: readonly string[];
  /** Index of the first token that differs; undefined unless tokens differ. */
  readonly differs: number | undefined;
  /** Why it was skipped, or what went wrong besides the tokens. */
  readonly reason: string | undefined;
  readonly milliseconds: number;
  /** The case as it was written, and file:line. */
  readonly text: string;
  readonly where: string;
}

const DEADLINE_MS = 5000;

/** Runs one case. Whatever happens in it is in the result; nothing is thrown. */
export function runCase(system: System, one: Case, options: RunOptions = {}): CaseResult {
  const profile = options.profile ?? "linux-6.18";
  const base = { id: one.id, system: system.name, text: one.text, where: one.where };
  const reason = skipReason(system, one, profile, options.lacks);
  if (reason !== undefined) {
    const none = { expected: [], got: [], differs: undefined, milliseconds: 0 };
    return { ...base, ...none, status: "skip", reason };
  }
  const start = performance.now();
  const { got, masks, problem } = play(system, one, profile, options.deadlineMs ?? DEADLINE_MS);
  const written = profile === "linux-4.3" ? (one.expectedSeed ?? one.expected) : one.expected;
  const expected = written.map((token) => expandMasks(token, masks));
  const differs = firstDifference(expected, got);
  const failed = differs !== undefined || problem !== undefined;
  return {
    ...base,
    status: failed ? "fail" : "ok",
    expected,
    got,
    differs,
    reason: problem,
    milliseconds: performance.now() - start,
  };
}

/** Runs cases one after the other; `each` hears of every result as it comes. */
export function runCases(
  system: System,
  cases: readonly Case[],
  options: RunOptions & { readonly each?: (result: CaseResult) => void } = {},
): CaseResult[] {
  return cases.map((one) => {
    const result = runCase(system, one, options);
    options.each?.(result);
    return result;
  });
}

function skipReason(
  system: System,
  one: Case,
  profile: Profile,
  lacks: ReadonlyMap<Need, string> | undefined,
): string | undefined {
  const skip = one.skips.get(system.name);
  if (skip !== undefined) return skip;
  if (profile === "linux-4.3" && one.era !== "seed") return "Linux 4.3 has no such operation";
  for (const need of one.needs) {
    const reason = lacks?.get(need);
    if (reason !== undefined) return reason;
  }
  return undefined;
}

interface Play {
  readonly got: readonly string[];
  readonly masks: Masks;
  readonly problem: string | undefined;
}

function play(system: System, one: Case, profile: Profile, deadlineMs: number): Play {
  let masks = MASKS["linux-6.18"];
  let machine: Machine | undefined;
  let problem: string | undefined;
  let at: Step | undefined;
  try {
    // The seed had no features to tell releases apart by.
    if (profile !== "linux-4.3") masks = masksOf(system);
    machine = new Machine(system, masks, deadlineMs);
    for (const step of [...one.setUp, ...one.actions]) {
      at = step;
      perform(machine, step);
    }
  } catch (error) {
    problem = `${at === undefined ? "" : `${at.text}: `}${describe(error)}`;
  }
  try {
    machine?.close();
  } catch (error) {
    problem ??= describe(error);
  }
  return { got: (machine?.tokens ?? []).flatMap((token) => token.split(" ")), masks, problem };
}

function describe(error: unknown): string {
  if (error instanceof CaseProblem) return error.message;
  if (error instanceof MinorfaultError) return `${error.message} (${error.code}: ${error.hint})`;
  return error instanceof Error ? `${error.name}: ${error.message}` : String(error);
}

const known = new WeakMap<System, Masks>();

/** The masks of a system's release, asked once of a process of its own. */
function masksOf(system: System): Masks {
  const found = known.get(system);
  if (found !== undefined) return found;
  const process = system.spawnProcess();
  try {
    const fd = process.call("userfaultfd", O.CLOEXEC);
    if (fd < 0) throw new CaseProblem(`userfaultfd(2) answered ${fd}`);
    const masks = masksFor(new Ioctls(process, fd).api(0n).features);
    known.set(system, masks);
    return masks;
  } finally {
    process.kill();
  }
}

function firstDifference(expected: readonly string[], got: readonly string[]): number | undefined {
  const length = Math.max(expected.length, got.length);
  for (let index = 0; index < length; index += 1) {
    if (!matches(expected[index], got[index])) return index;
  }
  return undefined;
}

/** SIGBUS(2|4) stands for either code; every other token has to be equal. */
function matches(expected: string | undefined, got: string | undefined): boolean {
  if (expected === got) return true;
  const codes = /^(SIG[A-Z]+)\(([\d|]+)\)$/.exec(expected ?? "");
  return codes?.[2]?.split("|").some((code) => got === `${codes[1]}(${code})`) ?? false;
}
