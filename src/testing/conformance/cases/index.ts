// The built-in cases: all 256 of the project's specification of userfaultfd, section by section.

import { type Case, parseCases } from "../parse.ts";
import { OPEN_CASES } from "./a-open.ts";
import { REGISTER_CASES } from "./b-register.ts";
import { FAULT_CASES } from "./c-fault.ts";
import { READ_CASES } from "./d-read.ts";
import { COPY_CASES } from "./e-copy.ts";
import { WAKE_CASES, ZEROPAGE_CASES } from "./f-zeropage.ts";
import { WRITE_PROTECT_CASES } from "./h-write-protect.ts";
import { MINOR_CASES } from "./i-minor.ts";
import { MOVE_CASES, POISON_CASES } from "./j-poison.ts";
import { EVENT_CASES } from "./l-event.ts";
import { SCAN_CASES } from "./n-scan.ts";

/** Sections with the name that errors and results call them by. */
const SECTIONS: readonly (readonly [string, string])[] = [
  ["A-open", OPEN_CASES],
  ["B-register", REGISTER_CASES],
  ["C-fault", FAULT_CASES],
  ["D-read", READ_CASES],
  ["E-copy", COPY_CASES],
  ["F-zeropage", ZEROPAGE_CASES],
  ["G-wake", WAKE_CASES],
  ["H-write-protect", WRITE_PROTECT_CASES],
  ["I-minor", MINOR_CASES],
  ["J-poison", POISON_CASES],
  ["K-move", MOVE_CASES],
  ["L-event", EVENT_CASES],
  ["N-scan", SCAN_CASES],
];

export const CASES: readonly Case[] = SECTIONS.flatMap(([name, text]) => parseCases(text, name));
