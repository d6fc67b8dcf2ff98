// Completes the command line of a QEMU that is to take a saved machine: adds what is missing, and says what.

import { MinorfaultError } from "../../base/errors.ts";
import type { SavedMachine } from "./saved-machine.ts";

export interface CompletedLine {
  readonly arguments: readonly string[];
  /** What was added or changed, one option an entry, for people. */
  readonly added: readonly string[];
}

/** Options that may be written with one dash or two. */
const MACHINE = ["machine", "M"];
const FAMILIES: Readonly<Record<string, RegExp>> = { pc: /^pc-i440fx-/, q35: /^pc-q35-/ };

/** `qmpFd`: a listening socket that QEMU inherits under this number. */
export function completeCommandLine(
  given: readonly string[],
  saved: SavedMachine,
  qmpFd: number,
): CompletedLine {
  const line = [...given];
  const added: string[] = [];
  const add = (...options: string[]): void => {
    line.push(...options);
    added.push(options.join(" "));
  };
  pinMachine(line, saved.machine, add, (text) => added.push(text));
  const memory = mainMemory(saved);
  if (indexOf(line, ["m"]) < 0 && memory !== undefined) add("-m", `${memory / 2 ** 20}M`);
  const incoming = indexOf(line, ["incoming"]);
  if (incoming >= 0 && line[incoming + 1] !== "defer") {
    throw new MinorfaultError(
      "ERR_BAD_ARGUMENT",
      `QEMU is told to listen at ${line[incoming + 1]}; post-copy has to be agreed on before that`,
      { hint: "Leave -incoming out, or start QEMU yourself and use --incoming with the same address" },
    );
  }
  if (incoming < 0) add("-incoming", "defer");
  add(
    "-chardev",
    `socket,id=minorfault,fd=${qmpFd},server=on,wait=off`,
    "-mon",
    "chardev=minorfault,mode=control",
  );
  return { arguments: line, added };
}

/** An alias is another machine in another version of QEMU. */
function pinMachine(
  line: string[],
  saved: string | undefined,
  add: (...options: string[]) => void,
  note: (text: string) => void,
): void {
  if (saved === undefined) return;
  const at = indexOf(line, MACHINE);
  if (at < 0) {
    add("-machine", saved);
    return;
  }
  const [type = "", ...rest] = (line[at + 1] ?? "").split(",");
  const name = type.replace(/^type=/, "");
  if (name === saved) return;
  if (FAMILIES[name]?.test(saved)) {
    line[at + 1] = [saved, ...rest].join(",");
    note(`-machine ${line[at + 1]} (was ${type})`);
  } else if (name !== "" && !name.includes("=")) {
    throw new MinorfaultError(
      "ERR_MACHINE_DIFFERS",
      `The machine was saved as ${saved}, the command line says ${name}`,
    );
  }
}

/** The largest block is what -m gives, unless memory comes from elsewhere. */
function mainMemory({ blocks }: SavedMachine): number | undefined {
  return blocks.find(({ name }) => name === "pc.ram" || name === "microvm.ram")?.byteLength;
}

function indexOf(line: readonly string[], names: readonly string[]): number {
  return line.findIndex((option) => /^--?/.test(option) && names.includes(option.replace(/^--?/, "")));
}
