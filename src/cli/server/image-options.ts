// What `serve` and `server add` say of an image alike: where it is, and what becomes of faults that its store keeps waiting.

import { resolve } from "node:path";
import { Option } from "@commander-js/extra-typings";
import { schemeOf } from "../../source/scheme.ts";

const AT_DEADLINE = ["poison", "kill", "report"] as const;
export type AtDeadline = (typeof AT_DEADLINE)[number];

export function atDeadlineOption() {
  return new Option(
    "--at-deadline <what>",
    "then its page is poisoned (SIGBUS), or the guest killed, or it waits on and that is reported; default poison",
  ).choices(AT_DEADLINE);
}

/** The server has a working folder of its own: a path goes to it in full. */
export function fromHere(image: string): string {
  return schemeOf(image) === undefined ? resolve(image) : image;
}
