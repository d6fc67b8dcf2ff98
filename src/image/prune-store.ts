// Takes away packs that no image refers to.
//
//   nobody refers to it ──▶ condemned/<pack> with the time ──▶ a grace later, and still nobody ──▶ deleted
//                            somebody refers to it again  ──▶ taken off the list
//
// In two steps because of those who build at the same time. A builder relies on packs that images referred to when
// it began; so a pack is deleted only when nobody has referred to it for longer than a build takes. What a builder
// has written and not yet published is saved by the same grace. Before anything is deleted the manifests are read
// once more. If one can't be read, nothing is deleted: what it refers to is not known.
//
// With `repack`, packs that are mostly garbage are rewritten first (repack-store.ts); then nobody refers to them.

import type { ObjectStore } from "../source/object-store.ts";
import { badImage } from "./content.ts";
import { listImages } from "./list-images.ts";
import type { Manifest } from "./manifest.ts";
import { CONDEMNED, PACKS, PARTIAL, packKey, packOfKey } from "./names.ts";
import { loadRoot } from "./open-image.ts";
import { PackReader } from "./pack-reader.ts";
import { readPartial } from "./partial.ts";
import { type RepackReport, repackStore } from "./repack-store.ts";

/** Longer than builds take. */
export const GRACE_MS: number = 60 * 60 * 1000;
/** A push or pull that has not been resumed for so long is given up. */
const PARTIAL_AGE_MS = 7 * 24 * 60 * 60 * 1000;
/** LIMIT: bytes of what stands in condemned/. */
const NOTE_BYTES_MAX = 256;

export interface PruneOptions {
  /** How long nobody must have referred to a pack. Zero only while nobody builds. */
  readonly graceMs?: number;
  /** Rewrites packs of which less than half is needed. Default false. */
  readonly repack?: boolean;
  /** Only says what it would do. */
  readonly dryRun?: boolean;
  readonly signal?: AbortSignal;
  readonly now?: () => number;
  readonly onProgress?: (progress: PruneProgress) => void;
}

export interface PruneProgress {
  readonly phase: "repack" | "delete";
  readonly doneBytes: number;
  readonly totalBytes: number;
}

export interface PruneReport {
  readonly images: number;
  readonly livePacks: number;
  readonly liveBytes: number;
  readonly deletedPacks: number;
  readonly deletedBytes: number;
  /** Not referred to, and waiting for the grace to be over. */
  readonly condemnedPacks: number;
  readonly condemnedBytes: number;
  /** With `repack`; what it has left behind is among the condemned or deleted packs, except in a dry run. */
  readonly repacked?: RepackReport;
}

export async function pruneStore(store: ObjectStore, options: PruneOptions = {}): Promise<PruneReport> {
  const { graceMs = GRACE_MS, signal, dryRun = false, now = Date.now } = options;
  const repacked = options.repack ? await repack(store, options) : undefined;
  const began = now();
  const packs = new Map<string, number>();
  for await (const { key, byteLength } of store.list(PACKS, signal)) {
    const pack = packOfKey(key);
    if (pack !== undefined) packs.set(pack, byteLength);
  }
  const condemned = await condemnedPacks(store, signal);
  const { live, images } = await referredTo(store, began, signal);
  if (!dryRun) await acquit(store, condemned, live, packs);
  const dead = [...packs.keys()].filter((pack) => !live.has(pack));
  const due = dead.filter((pack) => graceMs <= 0 || began - (condemned.get(pack) ?? began) >= graceMs);
  const waiting = dead.filter((pack) => !due.includes(pack));
  if (!dryRun) {
    for (const pack of waiting) if (!condemned.has(pack)) await condemn(store, pack, began);
  }
  const deleted = dryRun ? due : await sweep(store, due, packs, options);
  if (!dryRun) await store.removeUnfinished?.(PARTIAL_AGE_MS, signal);
  const bytesOf = (some: Iterable<string>) =>
    [...some].reduce((sum, pack) => sum + (packs.get(pack) ?? 0), 0);
  const livePacks = [...packs.keys()].filter((pack) => live.has(pack));
  return {
    images,
    livePacks: livePacks.length,
    liveBytes: bytesOf(livePacks),
    deletedPacks: deleted.length,
    deletedBytes: bytesOf(deleted),
    condemnedPacks: waiting.length,
    condemnedBytes: bytesOf(waiting),
    ...(repacked && { repacked }),
  };
}

function repack(store: ObjectStore, { dryRun, signal, onProgress }: PruneOptions): Promise<RepackReport> {
  return repackStore(store, {
    ...(dryRun && { dryRun }),
    ...(signal && { signal }),
    onProgress: (progress) => onProgress?.({ phase: "repack", ...progress }),
  });
}

/** All packs that a manifest refers to. */
export function packsOfManifest(manifest: Manifest): string[] {
  const { root, attachments, workingSets } = manifest;
  return [root.pack, ...attachments.map(({ pack }) => pack), ...workingSets.map(({ pack }) => pack)];
}

async function referredTo(
  store: ObjectStore,
  now: number,
  signal: AbortSignal | undefined,
): Promise<{ live: Set<string>; images: number }> {
  const live = new Set<string>();
  const reader = new PackReader(store);
  let images = 0;
  try {
    for await (const { name, manifest, problem } of listImages(store, signal)) {
      if (manifest === undefined) {
        throw badImage(
          `What ${name} refers to is not known, so nothing can be deleted: ${problem?.message}`,
          problem,
        );
      }
      images++;
      for (const pack of packsOfManifest(manifest)) live.add(pack);
      for (const pack of (await loadRoot(reader, manifest, signal)).packs.names()) live.add(pack);
    }
    for await (const { key } of store.list(PARTIAL, signal)) {
      const partial = await readPartial(store, key, signal);
      if (partial === undefined || now - partial.time > PARTIAL_AGE_MS) continue;
      for (const pack of partial.packs) live.add(pack);
    }
  } finally {
    await reader.close();
  }
  return { live, images };
}

async function condemnedPacks(store: ObjectStore, signal?: AbortSignal): Promise<Map<string, number>> {
  const condemned = new Map<string, number>();
  for await (const { key } of store.list(CONDEMNED, signal)) {
    const pack = packOfKey(key);
    if (pack === undefined) continue;
    const text = Buffer.from(await store.get(key, NOTE_BYTES_MAX, signal)).toString();
    const time = Date.parse(text);
    // A note that can't be read counts from now.
    if (!Number.isNaN(time)) condemned.set(pack, time);
  }
  return condemned;
}

async function condemn(store: ObjectStore, pack: string, now: number): Promise<void> {
  await store.put(`${CONDEMNED}${pack}`, Buffer.from(new Date(now).toISOString()));
}

/** Notes about packs that somebody refers to again, or that are gone. */
async function acquit(
  store: ObjectStore,
  condemned: ReadonlyMap<string, number>,
  live: ReadonlySet<string>,
  packs: ReadonlyMap<string, number>,
): Promise<void> {
  for (const pack of condemned.keys()) {
    if (live.has(pack) || !packs.has(pack)) await store.delete(`${CONDEMNED}${pack}`);
  }
}

async function sweep(
  store: ObjectStore,
  due: readonly string[],
  packs: ReadonlyMap<string, number>,
  { signal, now = Date.now, onProgress }: PruneOptions,
): Promise<string[]> {
  if (due.length === 0) return [];
  const { live } = await referredTo(store, now(), signal);
  const dead = due.filter((pack) => !live.has(pack));
  const totalBytes = dead.reduce((sum, pack) => sum + (packs.get(pack) ?? 0), 0);
  let doneBytes = 0;
  for (const pack of dead) {
    signal?.throwIfAborted();
    await store.delete(packKey(pack));
    await store.delete(`${CONDEMNED}${pack}`);
    doneBytes += packs.get(pack) ?? 0;
    onProgress?.({ phase: "delete", doneBytes, totalBytes });
  }
  return dead;
}
