// What a push or pull has brought already: so that one that was interrupted goes on where it stopped, and so that
// `prune` leaves its packs alone.

import { type Formed, integer, list, matching, record } from "../base/form.ts";
import type { ObjectStore } from "../source/object-store.ts";
import { checkName, PARTIAL } from "./names.ts";

const form = record({
  /** Milliseconds since 1970. */
  time: integer(0),
  packs: list(matching(/^[0-9a-f]{64}$/)),
});

export type Partial = Formed<typeof form>;

/** LIMIT: bytes of the note: 200,000 packs. */
const NOTE_BYTES_MAX = 16 * 2 ** 20;

export function partialKey(image: string): string {
  return `${PARTIAL}${checkName("an image", image)}.json`;
}

/** The note, or undefined when it says nothing that can be used. */
export async function readPartial(
  store: ObjectStore,
  key: string,
  signal?: AbortSignal,
): Promise<Partial | undefined> {
  const bytes = await store.get(key, NOTE_BYTES_MAX, signal);
  try {
    const note = JSON.parse(Buffer.from(bytes).toString()) as Partial;
    return form(note) === undefined ? note : undefined;
  } catch {
    return undefined;
  }
}

export async function writePartial(store: ObjectStore, image: string, partial: Partial): Promise<void> {
  await store.put(partialKey(image), Buffer.from(JSON.stringify(partial)));
}
