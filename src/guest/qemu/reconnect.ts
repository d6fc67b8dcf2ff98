// Opens a new way into a QEMU that has lost the source of its memory (postcopy-paused), over its control socket.
//
//   migrate-recover unix:…  ▶  QEMU listens there  ▶  we connect, and ask which pages it has
//
// The commands are out of band: QEMU's main thread may be standing at a missing page itself, and answers nothing else.

import { mkdtemp, rm } from "node:fs/promises";
import type { Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { MinorfaultError } from "../../base/errors.ts";
import { connectTo } from "./address.ts";
import type { QmpClient } from "./qmp.ts";

/** Lets QEMU listen again, at `uri` or at a socket of our own, and connects to it. */
export async function reconnect(qmp: QmpClient, signal: AbortSignal, uri?: string): Promise<Socket> {
  const folder = uri === undefined ? await mkdtemp(join(tmpdir(), "minorfault-qemu-")) : undefined;
  const address = uri ?? `unix:${join(folder!, "recover")}`;
  try {
    await recover(qmp, address);
    return await connectTo(address, signal);
  } finally {
    if (folder !== undefined) await rm(folder, { recursive: true, force: true });
  }
}

async function recover(qmp: QmpClient, uri: string): Promise<void> {
  try {
    await qmp.executeOutOfBand("migrate-recover", { uri });
  } catch (error) {
    // It may not have noticed yet that its source is gone: a network that is silent looks like one that is idle.
    if (!(error instanceof MinorfaultError) || error.code !== "ERR_QEMU") throw error;
    await qmp.executeOutOfBand("migrate-pause").catch(() => {});
    await qmp.executeOutOfBand("migrate-recover", { uri });
  }
}
