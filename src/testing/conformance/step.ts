// One step of a case: who does what, whether it is heard, and what it is called.
//
//   c.t1: copy 0 from=s.2 as=child        (c.t1: ...) is silent and has to succeed
//   └─┬┘  └┬─┘ └───┬────┘ └─┬────┘
//   actor verb    words    label of the token
//
//   ?t1                                   what has become of what t1 was given to do
//   b = shmem 8 size=4                    a memory area with a name

import { Arguments } from "./arguments.ts";
import { KINDS } from "./kinds.ts";
import { MAIN, type Machine } from "./machine.ts";
import { CaseProblem } from "./problem.ts";
import type { Scope } from "./scope.ts";
import { type Source, type Word, words } from "./source.ts";
import { type Action, print, type Token } from "./task.ts";
import { verbNamed } from "./verbs/index.ts";
import { outcome } from "./verbs/process.ts";

export interface Step {
  readonly text: string;
  readonly silent: boolean;
  /** The process that does it. */
  readonly process: string;
  /** The thread that is given the task, and nothing is said; undefined: whoever, and the outcome is said. */
  readonly thread: string | undefined;
  /** Replaces the label of what is said. */
  readonly label: string | undefined;
  readonly action: Action;
}

/** Parses text[from, until) as one step. A step of the set-up is silent without parentheses. */
export function parseStep(source: Source, scope: Scope, from: number, until: number, setUp: boolean): Step {
  const all = words(source, from, until);
  const [first, last] = [all[0]!, all.at(-1)!];
  const parenthesized = first.text.startsWith("(");
  if (parenthesized) {
    if (!last.text.endsWith(")")) throw source.error(last.at, 'a step that ends with ")"', last.text);
    all[0] = { text: first.text.slice(1), at: first.at + 1 };
    const end = all.at(-1)!;
    all[all.length - 1] = { text: end.text.slice(0, -1), at: end.at };
  }
  const text = source.text.slice(first.at, last.at + last.text.length).replace(/\s+/g, " ");
  const rest = all.filter((word) => word.text !== "");
  if (rest.length === 0) throw source.error(first.at, "a step", first.text);
  const { process, thread } = takeActor(source, scope, rest);
  const { action, label } = compile(source, scope, rest, process);
  if (thread !== undefined && action.kind !== "task") {
    throw source.error(first.at, "something that a thread can be told to do", text);
  }
  if (thread !== undefined && label !== undefined) {
    throw source.error(first.at, `no as= where nothing is said (ask ?${thread} as=${label})`, text);
  }
  if (thread !== undefined) scope.threads.add(process === MAIN ? thread : `${process}.${thread}`);
  return { text, silent: setUp || parenthesized, process, thread, label, action };
}

/** Takes "c:", "t1:" or "c.t1:" from the front. Threads are called t and a number; other names are processes. */
function takeActor(source: Source, scope: Scope, rest: Word[]): Pick<Step, "process" | "thread"> {
  const word = rest[0]!;
  if (!word.text.endsWith(":")) return { process: MAIN, thread: undefined };
  const match = /^(?:([a-z][a-z0-9]*)\.)?([a-z][a-z0-9]*):$/.exec(word.text);
  if (match === null) throw source.error(word.at, "a thread or a process, as t1:, c: or c.t1:", word.text);
  rest.shift();
  if (rest.length === 0) throw source.error(word.at + word.text.length, "a verb", "");
  const isThread = /^t\d+$/.test(match[2]!);
  const process = isThread ? match[1] : match[2];
  if (!isThread && match[1] !== undefined) throw source.error(word.at, "a thread such as c.t1:", word.text);
  if (process !== undefined && process !== MAIN && !scope.processes.has(process)) {
    throw source.error(word.at, "a process that the case has forked", process);
  }
  return { process: process ?? MAIN, thread: isThread ? match[2] : undefined };
}

function compile(source: Source, scope: Scope, all: readonly Word[], process: string) {
  const [verb, ...rest] = named(all);
  if (rest[0]?.text === "=") return { action: area(source, scope, verb, rest), label: undefined };
  if (verb.text.startsWith("?")) {
    const name = { text: verb.text.slice(1), at: verb.at + 1 };
    const asked = { ...name, text: process === MAIN ? name.text : `${process}.${name.text}` };
    const args = new Arguments(source, scope, verb, [asked, ...rest]);
    const label = args.option("as")?.text;
    // The thread's own process answers: its name is in the question.
    return { action: outcome(args), label };
  }
  const known = verbNamed(verb.text);
  if (known === undefined) throw source.error(verb.at, "a verb (docs/cases.md lists them)", verb.text);
  const args = new Arguments(source, scope, verb, rest);
  const label = args.option("as")?.text;
  return { action: known.compile(args), label };
}

/** `b=anon 4` is `b = anon 4`: no verb has a "=" in it. */
function named(all: readonly Word[]): [Word, ...Word[]] {
  const [first, ...rest] = all as [Word, ...Word[]];
  const equals = first.text.indexOf("=");
  if (equals <= 0) return [first, ...rest];
  const kind = { text: first.text.slice(equals + 1), at: first.at + equals + 1 };
  return [
    { text: first.text.slice(0, equals), at: first.at },
    { text: "=", at: first.at + equals },
    ...(kind.text === "" ? [] : [kind]),
    ...rest,
  ];
}

function area(source: Source, scope: Scope, name: Word, rest: readonly Word[]): Action {
  if (!/^[a-z][a-z0-9]*$/.test(name.text)) throw source.error(name.at, "a name for an area", name.text);
  const kindWord = rest[1];
  const known = kindWord === undefined ? undefined : KINDS[kindWord.text];
  if (kindWord === undefined || known === undefined) {
    const kinds = Object.keys(KINDS).join(", ");
    throw source.error((kindWord ?? rest[0]!).at, `a kind of memory (${kinds})`, kindWord?.text ?? "");
  }
  const args = new Arguments(source, scope, kindWord, rest.slice(2));
  const make = known.compile(args);
  args.end();
  scope.areas.add(name.text);
  return {
    kind: "look",
    look(actor) {
      actor.areas.define(name.text, make(actor));
      return [];
    },
  };
}

/** Performs a step on a machine; what it says becomes part of the result unless the step is silent. */
export function perform(machine: Machine, step: Step): void {
  machine.settle();
  const actor = machine.actor(step.process);
  const { action } = step;
  if (step.thread !== undefined && action.kind === "task") {
    actor.start(step.thread, action.task(actor));
    return;
  }
  const said = action.kind === "task" ? actor.perform(action.task(actor)) : action.look(actor);
  const tokens = said.map((token) => relabelled(token, step.label));
  if (!step.silent) {
    machine.say(tokens);
    return;
  }
  const failure = tokens.find((token) => token.failed);
  if (failure !== undefined) throw new CaseProblem(`The silent step ${step.text} says ${print(failure)}`);
}

/** A failure keeps its own words; a label says what a value is. */
function relabelled(token: Token, label: string | undefined): Token {
  return label === undefined || token.failed ? token : { ...token, label };
}
