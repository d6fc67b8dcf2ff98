// Texts of cases to cases. One line a case; indented lines continue it; `#` begins a comment.
//
//   E15 seed skip software "why" | std; t1: read 0 | copy 0 dontwake; ?t1 -> OK/4096 blocked @4.3 OK/4096 blocked
//   └┬┘ └──────────┬───────────┘   └──── set-up ───┘ └────── actions ─────┘  └── tokens ───┘ └ the 2015 kernel ──┘
//   id            tags

import { isMaskName } from "./masks.ts";
import { type Need, Scope } from "./scope.ts";
import { Source, type Word, words } from "./source.ts";
import { parseStep, type Step } from "./step.ts";

export type SystemName = "kernel" | "software";

export interface Case {
  readonly id: string;
  /** seed: what the first release (Linux 4.3, 2015) could do already. */
  readonly era: "seed" | "later";
  /** Why a case can't be expressed on an implementation. */
  readonly skips: ReadonlyMap<SystemName, string>;
  /** What the case needs of the host. */
  readonly needs: ReadonlySet<Need>;
  readonly setUp: readonly Step[];
  readonly actions: readonly Step[];
  /** Tokens, with masks by name. */
  readonly expected: readonly string[];
  /** What Linux 4.3 answered, where that differs. */
  readonly expectedSeed: readonly string[] | undefined;
  /** The case as it was written, in one line. */
  readonly text: string;
  /** file:line. */
  readonly where: string;
}

/** Parses a text of cases. `name` stands for it in errors (ERR_BAD_CASE says name:line:column). */
export function parseCases(text: string, name: string): Case[] {
  const source = new Source(name, withoutComments(text));
  const seen = new Map<string, string>();
  return caseRanges(source).map(({ from, until }) => {
    const parsed = parseCase(source, from, until);
    const before = seen.get(parsed.id);
    if (before !== undefined) throw source.error(from, `an id other than that of ${before}`, parsed.id);
    seen.set(parsed.id, parsed.where);
    return parsed;
  });
}

/** Comments become blanks, so that positions stay what they are. */
function withoutComments(text: string): string {
  return text
    .replaceAll("\r\n", "\n")
    .split("\n")
    .map((line) => {
      const at = commentStart(line);
      return at < 0 ? line : line.slice(0, at);
    })
    .join("\n");
}

/** A `#` at the beginning or after white space, outside of quotes. */
function commentStart(line: string): number {
  let quoted = false;
  for (let at = 0; at < line.length; at += 1) {
    if (line[at] === '"') quoted = !quoted;
    else if (line[at] === "#" && !quoted && (at === 0 || /\s/.test(line[at - 1]!))) return at;
  }
  return -1;
}

function caseRanges(source: Source): { from: number; until: number }[] {
  const ranges: { from: number; until: number }[] = [];
  let at = 0;
  for (const line of source.text.split("\n")) {
    const until = at + line.length;
    if (line.trim() !== "") {
      const last = ranges.at(-1);
      if (!/^\s/.test(line)) ranges.push({ from: at, until });
      else if (last !== undefined) last.until = until;
      else
        throw source.error(at + line.search(/\S/), "a case that begins at the start of a line", line.trim());
    }
    at = until + 1;
  }
  return ranges;
}

function parseCase(source: Source, from: number, until: number): Case {
  const all = words(source, from, until);
  const arrow = all.findIndex((word) => word.text === "->");
  const last = all.at(-1)!;
  if (arrow < 0) throw source.error(last.at + last.text.length, '"->" and the expected tokens', "");
  const bars = all.slice(0, arrow).filter((word) => word.text === "|");
  const firstBar = bars[0];
  if (firstBar === undefined || bars.length > 2) {
    const at = bars[2] ?? all[arrow]!;
    throw source.error(at.at, "id tags | [set-up |] actions -> tokens", at.text);
  }
  const scope = new Scope();
  const head = parseHead(source, from, firstBar.at);
  const actionsFrom = (bars[1] ?? firstBar).at + 1;
  const setUp = bars[1] === undefined ? [] : steps(source, scope, firstBar.at + 1, bars[1].at, true);
  const actions = steps(source, scope, actionsFrom, all[arrow]!.at, false);
  if (actions.length === 0) throw source.error(all[arrow]!.at, "an action", "->");
  return {
    ...head,
    needs: scope.needs,
    setUp,
    actions,
    ...tokens(source, all.slice(arrow + 1), all[arrow]!),
    text: source.text.slice(from, until).replace(/\s+/g, " ").trim(),
    where: source.line(from),
  };
}

function steps(source: Source, scope: Scope, from: number, until: number, setUp: boolean): Step[] {
  const parsed: Step[] = [];
  let at = from;
  for (const piece of source.text.slice(from, until).split(";")) {
    const end = at + piece.length;
    if (piece.trim() !== "") parsed.push(parseStep(source, scope, at, end, setUp));
    at = end + 1;
  }
  return parsed;
}

function parseHead(source: Source, from: number, until: number): Pick<Case, "id" | "era" | "skips"> {
  const text = source.text.slice(from, until);
  const found = [...text.matchAll(/"[^"]*"|\S+/g)].map((match) => ({
    text: match[0],
    at: from + match.index,
  }));
  const id = found.shift();
  if (id === undefined || !/^[A-Za-z][\w.-]*$/.test(id.text)) {
    throw source.error(from, "an id such as C09", id?.text ?? "");
  }
  let era: Case["era"] = "later";
  const skips = new Map<SystemName, string>();
  for (let word = found.shift(); word !== undefined; word = found.shift()) {
    if (word.text === "seed" || word.text === "later") era = word.text;
    else if (word.text === "skip") skips.set(...parseSkip(source, word, found.shift(), found.shift()));
    else throw source.error(word.at, 'seed, later, skip kernel "why" or skip software "why"', word.text);
  }
  return { id: id.text, era, skips };
}

function parseSkip(source: Source, skip: Word, which?: Word, reason?: Word): [SystemName, string] {
  if (which?.text !== "kernel" && which?.text !== "software") {
    throw source.error(which?.at ?? skip.at, "kernel or software after skip", which?.text ?? "");
  }
  if (reason === undefined || !/^"[^"]+"$/.test(reason.text)) {
    throw source.error(reason?.at ?? which.at, "a reason in quotes", reason?.text ?? "");
  }
  return [which.text, reason.text.slice(1, -1)];
}

const SEED_MARK = "@4.3";

function tokens(source: Source, all: readonly Word[], arrow: Word): Pick<Case, "expected" | "expectedSeed"> {
  for (const word of all) {
    for (const [name] of word.text.matchAll(/\$[A-Z0-9_]+/g)) {
      if (!isMaskName(name)) throw source.error(word.at, "a mask that masks.ts knows", name);
    }
  }
  const mark = all.findIndex((word) => word.text === SEED_MARK);
  const expected = (mark < 0 ? all : all.slice(0, mark)).map((word) => word.text);
  const seed = mark < 0 ? undefined : all.slice(mark + 1).map((word) => word.text);
  if (expected.length === 0) throw source.error(arrow.at + 2, "expected tokens", "");
  if (seed?.length === 0) throw source.error(all[mark]!.at, `tokens after ${SEED_MARK}`, "");
  return { expected, expectedSeed: seed };
}
