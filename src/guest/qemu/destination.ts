// The QEMU that a machine is to be restored in, looked at before anything is sent: what is different there would be
// refused by QEMU only when half of it had been loaded, or, worse, would not be.

import * as v from "valibot";
import { MinorfaultError } from "../../base/errors.ts";
import type { QmpClient } from "./qmp.ts";
import type { SavedMachine } from "./saved-machine.ts";

export interface DestinationBlock {
  readonly name: string;
  readonly pageSize: number;
  readonly byteLength: number;
  /** More than `byteLength` where the block may grow. */
  readonly byteLengthMax: number;
}

export interface Destination {
  /** "7.2.22 (Debian …)" */
  readonly qemu: string;
  /** "pc-i440fx-7.2"; undefined where QEMU does not say. */
  readonly machine: string | undefined;
  readonly blocks: readonly DestinationBlock[];
}

const UNITS: Readonly<Record<string, number>> = { "": 1, K: 2 ** 10, M: 2 ** 20, G: 2 ** 30 };
/** A line of `info ramblock`: name, page size, offset, bytes in use, bytes at most. */
const BLOCK = /^ *(\S.*?) +(\d+) ([KMG]?)i?B +0x[0-9a-f]+ +0x([0-9a-f]+) +0x([0-9a-f]+) *\r?$/gm;

/** Asks QEMU what it is; the machine must not run yet. */
export async function lookAtDestination(qmp: QmpClient): Promise<Destination> {
  const [text, type] = await Promise.all([
    qmp.execute("human-monitor-command", { "command-line": "info ramblock" }),
    // QEMU has no machine under this name while it is preconfigured; then it says it later itself.
    qmp.execute("qom-get", { path: "/machine", property: "type" }).catch(() => undefined),
  ]);
  return {
    qemu: qmp.version,
    machine: v.is(v.string(), type) ? type.replace(/-machine$/, "") : undefined,
    blocks: parseBlocks(v.parse(v.string(), text)),
  };
}

/** The blocks of `info ramblock`. */
export function parseBlocks(text: string): DestinationBlock[] {
  return [...text.matchAll(BLOCK)].map(([, name, size, unit, used, total]) => ({
    name: name!,
    pageSize: Number(size) * UNITS[unit!]!,
    byteLength: Number.parseInt(used!, 16),
    byteLengthMax: Number.parseInt(total!, 16),
  }));
}

/** Refuses a QEMU that is another machine than the saved one; gives the page sizes of its blocks. */
export function checkDestination(saved: SavedMachine, destination: Destination): Map<string, number> {
  const { machine, qemu, blocks } = destination;
  if (saved.machine !== undefined && machine !== undefined && saved.machine !== machine) {
    throw differs(`it was saved as ${saved.machine}, this QEMU is ${machine}`, `-machine ${saved.machine}`);
  }
  if (saved.qemu !== undefined && isOlder(qemu, saved.qemu)) {
    throw differs(
      `it was saved by QEMU ${saved.qemu}, this is the older ${qemu}`,
      "the same QEMU, or a newer one",
    );
  }
  const here = new Map(blocks.map((block) => [block.name, block]));
  for (const { name, byteLength } of saved.blocks) {
    const block = here.get(name);
    if (block === undefined)
      throw differs(`it has a block of RAM ${name}, this QEMU has none`, "the same devices");
    here.delete(name);
    const fits = block.byteLengthMax > block.byteLength && byteLength <= block.byteLengthMax;
    if (block.byteLength === byteLength || fits) continue;
    throw differs(
      `its block ${name} has ${byteLength} bytes, that of this QEMU ${block.byteLength}`,
      `the same memory (-m), ${byteLength / 2 ** 20} MiB for this block`,
    );
  }
  const [more] = here.keys();
  if (more !== undefined) throw differs(`this QEMU has a block of RAM ${more} more`, "the same devices");
  return new Map(blocks.map(({ name, pageSize }) => [name, pageSize]));
}

function differs(how: string, wanted: string): MinorfaultError {
  return new MinorfaultError("ERR_MACHINE_DIFFERS", `The saved machine does not fit this QEMU: ${how}`, {
    hint: `Start QEMU with ${wanted}; the command line must be the one of the machine that was saved`,
  });
}

/** Compares major and minor versions. */
function isOlder(here: string, there: string): boolean {
  const [a, b] = [here, there].map((text) => /^(\d+)\.(\d+)/.exec(text)?.slice(1).map(Number));
  if (a === undefined || b === undefined) return false;
  return a[0]! < b[0]! || (a[0] === b[0] && a[1]! < b[1]!);
}
