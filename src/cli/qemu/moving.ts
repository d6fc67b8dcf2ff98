// What the verbs have in common that bring a machine into a QEMU: options, progress, what they say at the end.

import { Option } from "@commander-js/extra-typings";
import {
  checkDestination,
  lookAtDestination,
  PAGE_BYTES,
  type QmpLine,
  type SavedMachine,
  type SourceCounters,
  type TransferReport,
} from "../../guest/qemu/index.ts";
import type { ByteProgress } from "../byte-progress.ts";
import { bytesText, counted, msText, parseBytes, parseMs } from "../bytes.ts";

export function rateOption() {
  return new Option("--rate <size>", "bytes a second of memory that nobody asked for").argParser(parseBytes);
}

export function patienceOption() {
  return new Option(
    "--patience <time>",
    "how long a page is waited for that the image does not give, before the rest is left to `resume` (default: 30s)",
  ).argParser(parseMs);
}

/** Compares a QEMU with the saved machine before anything is sent; its page sizes. */
export async function pageSizesOf(line: QmpLine, saved: SavedMachine): Promise<ReadonlyMap<string, number>> {
  return checkDestination(saved, await lookAtDestination(await line.client()));
}

/** Shows pages that QEMU has on a bar. */
export function showing(bar: ByteProgress): (counters: SourceCounters) => void {
  return ({ pagesThere, pagesTotal }) =>
    bar.update({ doneBytes: pagesThere * PAGE_BYTES, totalBytes: pagesTotal * PAGE_BYTES });
}

/** Lines about what was moved. */
export function movedText({ counters, completedMs }: TransferReport): string[] {
  const { requests, pagesSent, zerosSent, recoveries } = counters;
  return [
    `  moved    ${bytesText(pagesSent * PAGE_BYTES)} and ${bytesText(zerosSent * PAGE_BYTES)} of zeros in ${msText(completedMs)}`,
    `  asked    ${counted(requests, "page")} by the guest itself`,
    ...(recoveries > 0 ? [`  resumed  ${recoveries} times`] : []),
  ];
}
