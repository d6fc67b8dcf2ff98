// Walks over the chunks of an image that are stored, in order, reading neighbours in a pack with one read.
//
//   chunks   12 13 14 │ 15 │ 80 …        pack    ┌12┬13┬14┬──┬80┐
//            one read   another pack             └──────┘ read at once

import type { IndexRecord } from "./index-node.ts";
import { PAGE_CHUNKS } from "./limits.ts";
import type { OpenedImage } from "./open-image.ts";

export interface ChunkRecord {
  readonly chunk: number;
  readonly record: IndexRecord;
}

export interface StoredChunkRecord extends ChunkRecord {
  /** The chunk as it is stored, not verified. */
  readonly stored: Uint8Array;
}

/** LIMIT: bytes of one read. */
const READ_BYTES_MAX = 4 * 2 ** 20;

export interface GroupLimits {
  readonly bytes: number;
  readonly chunks: number;
}

/** All chunks that are stored, in order. */
export async function* recordsOf(image: OpenedImage, signal?: AbortSignal): AsyncGenerator<ChunkRecord> {
  const { node } = image.index.root;
  for (let page = 0; page < node.capacity; page++) {
    if (!node.has(page)) continue;
    const loaded = await image.index.page(page, signal);
    for (let place = 0; loaded !== undefined && place < loaded.capacity; place++) {
      const record = loaded.get(place);
      if (record !== undefined) yield { chunk: page * PAGE_CHUNKS + place, record };
    }
  }
}

/** Neighbours in one pack, which are read at once. */
export async function* groupsOf(
  records: AsyncIterable<ChunkRecord> | Iterable<ChunkRecord>,
  limits: GroupLimits = { bytes: READ_BYTES_MAX, chunks: Number.POSITIVE_INFINITY },
): AsyncGenerator<readonly ChunkRecord[]> {
  let group: ChunkRecord[] = [];
  for await (const next of records) {
    const first = group[0]?.record;
    const last = group[group.length - 1]?.record;
    const joins =
      first !== undefined &&
      last !== undefined &&
      last.pack === next.record.pack &&
      last.offset + last.storedBytes === next.record.offset &&
      group.length < limits.chunks &&
      next.record.offset + next.record.storedBytes - first.offset <= limits.bytes;
    if (!joins && group.length > 0) {
      yield group;
      group = [];
    }
    group.push(next);
  }
  if (group.length > 0) yield group;
}

/** What is stored of a group, one chunk after the other. */
export async function readGroupInto(
  image: OpenedImage,
  group: readonly ChunkRecord[],
  target: Uint8Array,
  signal?: AbortSignal,
): Promise<void> {
  const { pack, offset } = group[0]!.record;
  const bytes = target.subarray(0, bytesOfGroup(group));
  await image.packs.read(image.index.root.packs.name(pack), offset, bytes, signal);
}

export function bytesOfGroup(group: readonly ChunkRecord[]): number {
  const first = group[0]!.record;
  const last = group[group.length - 1]!.record;
  return last.offset + last.storedBytes - first.offset;
}

export async function readGroup(
  image: OpenedImage,
  group: readonly ChunkRecord[],
  signal?: AbortSignal,
): Promise<StoredChunkRecord[]> {
  const first = group[0]!.record;
  const bytes = new Uint8Array(bytesOfGroup(group));
  await readGroupInto(image, group, bytes, signal);
  return group.map(({ chunk, record }) => {
    const from = record.offset - first.offset;
    return { chunk, record, stored: bytes.subarray(from, from + record.storedBytes) };
  });
}
