// Opens a new way into a QEMU that has lost the source of its memory (postcopy-paused), over its control socket.
//
//   migrate-recover unix:…  ▶  QEMU listens there  ▶  we connect, and ask which pages it has
//
// The commands are out of band: QEMU's main thread may be standing at a missing page itself, and answers nothing else.

import { mkdtemp, rm } from "node:fs/promises";
import type { Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { MinorfaultError } from "../../base/errors.ts";
import { connectTo } from "./address.ts";
import type { QmpClient } from "./qmp.ts";

/** LIMIT: how long QEMU may take until it has noticed. */
const NOTICE_MS = 5000;
const RETRY_MS = 2;
/** Refusals after which it is told: by then it would have noticed a connection that was closed. */
const PAUSE_AFTER = 10;

/** Lets QEMU listen again, at `uri` or at a socket of our own, and connects to it. */
export async function reconnect(qmp: QmpClient, signal: AbortSignal, uri?: string): Promise<Socket> {
  const folder = uri === undefined ? await mkdtemp(join(tmpdir(), "minorfault-qemu-")) : undefined;
  const address = uri ?? `unix:${join(folder!, "recover")}`;
  try {
    await recover(qmp, address, signal);
    return await connectTo(address, signal);
  } finally {
    if (folder !== undefined) await rm(folder, { recursive: true, force: true });
  }
}

/** QEMU takes a moment to notice that its source is gone; a network that is silent it takes for one that is idle. */
async function recover(qmp: QmpClient, uri: string, signal: AbortSignal): Promise<void> {
  const until = performance.now() + NOTICE_MS;
  for (let tries = 0; ; tries++) {
    try {
      await qmp.executeOutOfBand("migrate-recover", { uri });
      return;
    } catch (error) {
      const isRefused = error instanceof MinorfaultError && error.code === "ERR_QEMU";
      if (!isRefused || performance.now() > until) throw error;
    }
    if (tries === PAUSE_AFTER) await qmp.executeOutOfBand("migrate-pause").catch(() => {});
    await delay(RETRY_MS, undefined, { signal });
  }
}
