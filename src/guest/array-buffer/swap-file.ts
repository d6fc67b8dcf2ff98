// A file without a name for written pages that are evicted: it ends with the process, however that ends.

import { randomUUID } from "node:crypto";
import { closeSync, ftruncateSync, openSync, unlinkSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

export interface SwapFile {
  readonly descriptor: number;
  close(): void;
}

/** Sparse, `byteLength` long. */
export function openSwapFile(folder: string = tmpdir(), byteLength: number): SwapFile {
  const path = join(folder, `minorfault-swap-${randomUUID()}`);
  const descriptor = openSync(path, "wx+", 0o600);
  unlinkSync(path);
  ftruncateSync(descriptor, byteLength);
  return { descriptor, close: () => closeSync(descriptor) };
}
