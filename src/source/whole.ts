// A whole small object in memory, with the limit checked before anything is allocated.

import { MinorfaultError } from "../base/errors.ts";
import type { PageSource } from "./page-source.ts";

/** All bytes of a source, which is closed either way. More than `bytesMax` is ERR_SOURCE_TOO_LONG. */
export async function readWhole(
  source: PageSource,
  bytesMax: number,
  signal?: AbortSignal,
): Promise<Uint8Array> {
  try {
    checkWhole(source.name, source.byteLength, bytesMax);
    const bytes = new Uint8Array(source.byteLength);
    if (bytes.byteLength > 0) await source.read(0, bytes, signal);
    return bytes;
  } finally {
    await source.close();
  }
}

/** The same without waiting, from a source that is read so. */
export function readWholeSync(source: PageSource, bytesMax: number): Uint8Array | undefined {
  if (source.readSync === undefined) return undefined;
  checkWhole(source.name, source.byteLength, bytesMax);
  const bytes = new Uint8Array(source.byteLength);
  if (bytes.byteLength > 0) source.readSync(0, bytes);
  return bytes;
}

export function checkWhole(name: string, byteLength: number, bytesMax: number): void {
  if (byteLength <= bytesMax) return;
  throw new MinorfaultError(
    "ERR_SOURCE_TOO_LONG",
    `${name} has ${byteLength} bytes, at most ${bytesMax} are allowed here`,
    { byteLength },
  );
}
