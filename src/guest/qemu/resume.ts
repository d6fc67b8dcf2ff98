// Goes on with a machine whose source is gone: another process died, or its connection did. QEMU says itself which pages
// it has, so nothing of what the other one knew is needed but the image.

import type { Image } from "../../image/index.ts";
import type { QmpClient } from "./qmp.ts";
import { reconnect } from "./reconnect.ts";
import { readMachine } from "./saved-machine.ts";
import { openSession, type TransferOptions, type TransferReport, transfer } from "./transfer.ts";

export interface ResumeOptions extends Omit<TransferOptions, "reconnect"> {
  readonly image: Image;
  /** Of the QEMU that waits. */
  readonly qmp: QmpClient;
  /** Where QEMU is to listen: unix:PATH or tcp:HOST:PORT; default a socket in a temporary folder. */
  readonly uri?: string;
}

export interface ResumeReport extends TransferReport {
  /** Milliseconds until the machine was served again. */
  readonly recoveredMs: number;
}

export async function resumeMachine(options: ResumeOptions): Promise<ResumeReport> {
  const startedAt = performance.now();
  const { image, qmp, uri } = options;
  const signal = options.signal ?? new AbortController().signal;
  const again = (): ReturnType<typeof reconnect> => reconnect(qmp, signal, uri);
  const machine = await readMachine(image, signal);
  let recoveredMs = Number.NaN;
  const session = openSession(options, machine, {
    isResumed: true,
    onState: (state) => {
      if (state === "running" && Number.isNaN(recoveredMs)) recoveredMs = performance.now() - startedAt;
    },
  });
  const socket = await again().catch(async (error: unknown) => {
    await session.close();
    throw error;
  });
  const report = await transfer({ ...options, reconnect: again }, session, socket, async () => {
    session.sendsNeighbours = true;
    session.pushes = true;
  });
  return { ...report, recoveredMs };
}
