// A store that is far away: every request to it takes so much longer. It makes them as those over a network do.

import { setTimeout as sleep } from "node:timers/promises";
import type { ObjectStore, PageSource } from "../src/source/index.ts";

export function delayedStore(store: ObjectStore, delayMs: number): ObjectStore {
  if (delayMs === 0) return store;
  const far = async (): Promise<unknown> => sleep(delayMs);
  const delayed = (source: PageSource): PageSource => ({
    name: source.name,
    byteLength: source.byteLength,
    async read(offset, target, readSignal): Promise<void> {
      await far();
      await source.read(offset, target, readSignal);
    },
    close: () => source.close(),
  });
  return {
    url: store.url,
    async open(key, signal): Promise<PageSource> {
      const source = await store.open(key, signal);
      await far();
      return delayed(source);
    },
    async openAt(key, offset, target, signal): Promise<PageSource> {
      const source = await store.open(key, signal);
      await far();
      await source.read(offset, target, signal);
      return delayed(source);
    },
    async get(key, bytesMax, signal): Promise<Uint8Array> {
      await far();
      return store.get(key, bytesMax, signal);
    },
    put: (key, bytes, options) => store.put(key, bytes, options),
    list: (prefix, signal) => store.list(prefix, signal),
    delete: (key, signal) => store.delete(key, signal),
    close: async () => {},
  };
}
