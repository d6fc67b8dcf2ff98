// Every verb of the case language. docs/cases.md lists the same ones; a test compares.

import type { Verb, Verbs } from "../verb.ts";
import { ACCESS_VERBS } from "./access.ts";
import { FILL_VERBS } from "./fill.ts";
import { MEMORY_VERBS } from "./memory.ts";
import { MESSAGE_VERBS } from "./message.ts";
import { OBSERVE_VERBS } from "./observe.ts";
import { OPEN_VERBS } from "./open.ts";
import { PROCESS_VERBS } from "./process.ts";
import { READINESS_VERBS } from "./readiness.ts";

export const VERBS: Verbs = {
  ...OPEN_VERBS,
  ...FILL_VERBS,
  ...ACCESS_VERBS,
  ...MESSAGE_VERBS,
  ...READINESS_VERBS,
  ...OBSERVE_VERBS,
  ...MEMORY_VERBS,
  ...PROCESS_VERBS,
};

export function verbNamed(name: string): Verb | undefined {
  return Object.hasOwn(VERBS, name) ? VERBS[name] : undefined;
}
