// A raw file behind a wire: every read takes so many milliseconds longer. For pagers, which open it in their own thread.

import { setTimeout as sleep } from "node:timers/promises";
import { FileSource, type PageSource } from "../src/source/index.ts";

export interface Delayed {
  readonly path: string;
  readonly delayMs: number;
}

export async function openSource({ path, delayMs }: Delayed): Promise<PageSource> {
  const file = FileSource.open(path);
  return {
    name: `${path}, ${delayMs} ms away`,
    byteLength: file.byteLength,
    async read(offset: number, target: Uint8Array, signal?: AbortSignal): Promise<void> {
      await sleep(delayMs, undefined, signal && { signal });
      await file.read(offset, target, signal);
    },
    close: () => file.close(),
  };
}
