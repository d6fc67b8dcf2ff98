// Moves a running machine: its memory goes into an image while it runs, then what it changed last while it stands; the
// destination starts from that image before its memory has come.
//
//   source     runs ──────────────────────┤ stands
//   image           ── rounds ──▶ ── last ──▶ whole
//   destination                               RUN ── requests, rest ──▶ stands on its own
//                                         └ nobody runs ┘
//
// The machine is never in two places: the source stands before the destination is given anything that runs, and goes on
// as if nothing had been if the destination refuses it. Only where nobody can say whether it runs there, the source is
// left standing.

import type { ObjectStore } from "../../source/index.ts";
import { type CaptureMachineOptions, captureMachine, type MachineCaptureReport } from "./capture-machine.ts";
import type { QmpClient } from "./qmp.ts";
import type { RestoreReport } from "./restore.ts";
import type { SourceState } from "./source-contract.ts";

export interface MigrateOptions {
  /** Of the machine that moves. */
  readonly source: QmpClient;
  readonly store: ObjectStore;
  /** Of the image. One that is there already makes this faster: what did not change since is not stored again. */
  readonly name: string;
  readonly capture?: Omit<CaptureMachineOptions, "mode" | "after">;
  /** Starts the destination from the image, and tells of the states that the transfer goes through. */
  readonly restore: (onState: (state: SourceState) => void) => Promise<RestoreReport>;
  /** Whether the destination has certainly ended, asked when its restore has failed half-way. */
  readonly isGone?: () => Promise<boolean>;
  readonly onCaptured?: (report: MachineCaptureReport) => void;
}

export interface MigrateReport {
  readonly capture: MachineCaptureReport;
  readonly restore: RestoreReport;
  /** Milliseconds for which nobody ran the machine. */
  readonly downtimeMs: number;
}

export async function migrateMachine(options: MigrateOptions): Promise<MigrateReport> {
  const { source, store, name, capture: how, restore, onCaptured, isGone } = options;
  let stoodAt = Number.NaN;
  const unwatch = source.onEvent(({ name: event }) => {
    if (event === "STOP") stoodAt = performance.now();
  });
  let there: SourceState = "idle";
  let downtimeMs = Number.NaN;
  try {
    const capture = await captureMachine(source, store, name, { ...how, mode: "running", after: "stopped" });
    onCaptured?.(capture);
    const report = await restore((state) => {
      if (state === "running" && Number.isNaN(downtimeMs)) downtimeMs = performance.now() - stoodAt;
      there = state;
    });
    return { capture, restore: report, downtimeMs };
  } catch (error) {
    const neverRan = there === "idle" || there === "prefetching";
    const isOver = Number.isNaN(downtimeMs) && (neverRan || ((await isGone?.()) ?? false));
    if (isOver) await source.execute("cont").catch(() => {});
    throw error;
  } finally {
    unwatch();
  }
}
