// The result as programs read it. Keys are stable: docs/demo.md describes them.

import { residencyShares } from "./residency-map.ts";
import type { Latency, RestoreResult } from "./restore.ts";
import type { DemoResult } from "./run.ts";
import { exactSize } from "./size.ts";

/** Parts of the memory whose residency is reported. */
const MAP_CELLS = 256;

/** The command that does the same again, on this kind of guest. */
export function commandOf({ options, guest }: DemoResult): string {
  const { byteLength, seed, faultAroundPages } = options;
  return (
    `minorfault demo --size ${exactSize(byteLength)} --seed ${seed} ` +
    `--guest ${guest.kind} --fault-around ${faultAroundPages}`
  );
}

export function reportOf(result: DemoResult): object {
  const { options, machine, guest, image, restores } = result;
  return {
    command: commandOf(result),
    machine,
    options: { sizeBytes: options.byteLength, ...without(options, "byteLength") },
    guest: { kind: guest.kind, refused: guest.refusals },
    image: {
      byteLength: image.byteLength,
      pages: image.pageCount,
      pagesFromFiles: image.composition.files,
      pagesZero: image.composition.zero,
      pagesRepeated: image.composition.repeated,
      pagesDistinct: image.distinctPages,
      files: image.files,
      buildMs: round(result.imageMs),
    },
    samplePages: result.samplePages,
    restores: restores.map(restoreReport),
    verdict: {
      right: result.right,
      pagesChecked: restores.length * image.pageCount,
      wrongPages: restores.reduce((sum, { wrongPages }) => sum + wrongPages, 0),
    },
    totalMs: round(result.totalMs),
  };
}

function restoreReport(restore: RestoreResult): object {
  const { residentAfterSample } = restore;
  return {
    name: restore.name,
    faultAroundPages: restore.faultAroundPages,
    firstByteMs: round(restore.firstByteMs),
    sampleTouchedMs: round(restore.sampleMs),
    allTouchedMs: round(restore.allMs),
    faults: restore.faults,
    faultsUntilSample: restore.faultsUntilSample,
    bytesMoved: restore.bytesMoved,
    bytesMovedUntilSample: restore.bytesMovedUntilSample,
    bytesZeroed: restore.bytesZeroed,
    faultUs: latencyReport(restore.faultUs),
    residentUs: latencyReport(restore.residentUs),
    faultsToldBy: restore.faultsToldBy,
    residentPagesAfterSample: residentAfterSample.reduce((sum, isThere) => sum + isThere, 0),
    residencyAfterSample: residencyShares(residentAfterSample, MAP_CELLS).map(round),
    wrongPages: restore.wrongPages,
    guestReadRight: restore.guestReadRight,
    placement: restore.placement ?? null,
  };
}

function latencyReport(latency: Latency | undefined): object | null {
  if (latency === undefined) return null;
  const { count, p50, p99, max } = latency;
  return { count, p50: round(p50), p99: round(p99), max: round(max) };
}

/** Thousandths are more than any of these clocks can tell. */
function round(value: number): number {
  return Math.round(value * 1000) / 1000;
}

function without<T extends object, K extends keyof T>(object: T, key: K): Omit<T, K> {
  const { [key]: _, ...rest } = object;
  return rest;
}
