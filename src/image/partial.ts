// What a push or pull has brought already: so that one that was interrupted goes on where it stopped, and so that
// `prune` leaves its packs alone.

import * as v from "valibot";
import { integer, matching } from "../base/schema.ts";
import type { ObjectStore } from "../source/object-store.ts";
import { checkName, PARTIAL } from "./names.ts";

const schema = v.object({
  /** Milliseconds since 1970. */
  time: integer(0),
  packs: v.array(matching(/^[0-9a-f]{64}$/)),
});

export type Partial = v.InferOutput<typeof schema>;

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
    return v.parse(schema, JSON.parse(Buffer.from(bytes).toString()));
  } catch {
    return undefined;
  }
}

export async function writePartial(store: ObjectStore, image: string, partial: Partial): Promise<void> {
  await store.put(partialKey(image), Buffer.from(JSON.stringify(partial)));
}
