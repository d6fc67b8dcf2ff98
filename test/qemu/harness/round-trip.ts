// A machine that is captured and restored by the product, as short as tests can say it.

import {
  type CaptureMode,
  captureMachine,
  connectTo,
  type MachineCaptureReport,
  QmpClient,
  type RestoreOptions,
  type RestoreReport,
  restoreMachine,
} from "../../../src/guest/qemu/index.ts";
import { openImage } from "../../../src/image/index.ts";
import { openStore, splitImageUrl } from "../../../src/source/index.ts";
import type { QemuMachine } from "./machine.ts";

export async function captureTo(
  url: string,
  machine: QemuMachine,
  mode: CaptureMode,
): Promise<MachineCaptureReport> {
  const { store: storeUrl, name } = splitImageUrl(url);
  const store = await openStore(storeUrl);
  const qmp = await QmpClient.connect(machine.qmpPath);
  try {
    // Without its own bound of 128 MiB a second, which is for networks.
    return await captureMachine(qmp, store, name, { mode, bytesPerSecond: 2 ** 40 });
  } finally {
    qmp.close();
    await store.close();
  }
}

/** Restores into a machine that waits. A failure tells what QEMU has said, and how it ended if it has. */
export async function restoreInto(
  machine: QemuMachine,
  url: string,
  options: Partial<RestoreOptions> = {},
): Promise<RestoreReport> {
  try {
    await using image = await openImage(url);
    return await restoreMachine({
      image,
      url,
      connect: (signal) => connectTo(`unix:${machine.incomingPath}`, signal),
      ...options,
    });
  } catch (cause) {
    throw new Error(`${cause instanceof Error ? cause.message : cause}${machine.ending}`, { cause });
  }
}
