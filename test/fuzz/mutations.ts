// Ways in which a store can be wrong: by accident (bits, lengths, objects in each other's place), by going back in
// time, and by somebody who can compute hashes and lies about lengths and places.

import type { Random } from "../../src/base/random.ts";
import { sha256, toHex } from "../../src/image/hash.ts";
import { decodeManifest, encodeManifest, type Manifest } from "../../src/image/manifest.ts";
import { encodePackTail } from "../../src/image/pack.ts";
import { compress } from "../../src/source/codec.ts";
import type { MemoryStore } from "../image/memory-store.ts";

/** What a mutation may use: the store to change, and stores to take other things from. */
export interface Victim {
  readonly store: MemoryStore;
  /** The same store before the image was built anew. */
  readonly past: MemoryStore;
  /** The image under attack. */
  readonly name: string;
  /** Keys of objects that the image is read from. */
  readonly keys: readonly string[];
}

export type Mutation = (random: Random, victim: Victim) => void;

function pick<T>(random: Random, values: readonly T[]): T {
  return values[random.below(values.length)]!;
}

function keysOf({ keys }: Victim, prefix = ""): string[] {
  return keys.filter((key) => key.startsWith(prefix));
}

function replace(store: MemoryStore, key: string, bytes: Uint8Array): void {
  store.objects.set(key, bytes);
}

function flipBits(random: Random, victim: Victim): void {
  const { store } = victim;
  const key = pick(random, keysOf(victim));
  const bytes = store.objects.get(key)!.slice();
  for (let flips = 1 + random.below(3); flips > 0; flips--) {
    bytes[random.below(bytes.byteLength)]! ^= 1 << random.below(8);
  }
  replace(store, key, bytes);
}

function truncate(random: Random, victim: Victim): void {
  const { store } = victim;
  const key = pick(random, keysOf(victim));
  const bytes = store.objects.get(key)!;
  replace(store, key, bytes.slice(0, random.below(bytes.byteLength)));
}

function extend(random: Random, victim: Victim): void {
  const { store } = victim;
  const key = pick(random, keysOf(victim));
  const bytes = store.objects.get(key)!;
  const longer = new Uint8Array(bytes.byteLength + 1 + random.below(5000));
  longer.set(bytes);
  for (let at = bytes.byteLength; at < longer.byteLength; at++) longer[at] = random.uint32();
  replace(store, key, longer);
}

function overwrite(random: Random, victim: Victim): void {
  const { store } = victim;
  const key = pick(random, keysOf(victim));
  const bytes = store.objects.get(key)!.slice();
  const start = random.below(bytes.byteLength);
  const until = Math.min(bytes.byteLength, start + 1 + random.below(600));
  const from = random.below(bytes.byteLength);
  if (random.below(2) === 0) bytes.copyWithin(start, from, from + (until - start));
  else for (let at = start; at < until; at++) bytes[at] = random.below(2) === 0 ? 0 : random.uint32();
  replace(store, key, bytes);
}

function swapObjects(random: Random, victim: Victim): void {
  const { store } = victim;
  const prefix = pick(random, ["packs/", "packs/", "manifests/"]);
  const a = pick(random, keysOf(victim, prefix));
  const others = [...store.objects.keys()].filter((key) => key.startsWith(prefix) && key !== a);
  const b = pick(random, others);
  const [left, right] = [store.objects.get(a)!, store.objects.get(b)!];
  replace(store, a, right);
  replace(store, b, left);
}

function swapChunks(random: Random, victim: Victim): void {
  const { store } = victim;
  const key = pick(random, keysOf(victim, "packs/"));
  const bytes = store.objects.get(key)!.slice();
  const length = Math.min(4096, bytes.byteLength >> 1);
  const a = random.below(bytes.byteLength - length + 1);
  const b = random.below(bytes.byteLength - length + 1);
  const part = bytes.slice(a, a + length);
  bytes.copyWithin(a, b, b + length);
  bytes.set(part, b);
  replace(store, key, bytes);
}

function remove(random: Random, victim: Victim): void {
  const { store } = victim;
  store.objects.delete(pick(random, keysOf(victim)));
}

/** One object, or all of them, as they were before. */
function rollBack(random: Random, { store, past, name }: Victim): void {
  const manifest = `manifests/${name}.json`;
  if (random.below(2) === 0) {
    replace(store, manifest, past.objects.get(manifest)!);
    return;
  }
  // The old index under the new one's name.
  const [now, before] = [manifestIn(store, name), manifestIn(past, name)];
  replace(store, `packs/${now.root.pack}`, past.objects.get(`packs/${before.root.pack}`)!);
}

function manifestIn(store: MemoryStore, name: string): Manifest {
  return decodeManifest(store.objects.get(`manifests/${name}.json`)!, name);
}

const HUGE = [0, 1, 4095, 4096, 65536, 2 ** 31, 2 ** 32 - 1, 2 ** 40, 2 ** 53 - 1, -1, 1.5];

/** A manifest whose numbers lie, with a hash that is right. */
function lieInManifest(random: Random, { store, name }: Victim): void {
  const manifest = structuredClone(manifestIn(store, name)) as unknown as Record<string, unknown>;
  const numbers: { readonly holder: Record<string, unknown>; readonly key: string }[] = [];
  const walk = (value: unknown): void => {
    if (typeof value !== "object" || value === null) return;
    for (const [key, inner] of Object.entries(value)) {
      if (typeof inner === "number") numbers.push({ holder: value as Record<string, unknown>, key });
      else walk(inner);
    }
  };
  walk(manifest);
  const { holder, key } = pick(random, numbers);
  holder[key] = random.below(2) === 0 ? pick(random, HUGE) : (holder[key] as number) + random.below(9) - 4;
  replace(store, `manifests/${name}.json`, encodeManifest(manifest as unknown as Manifest));
}

/** Puts other bytes in the place of a pack, with names and hashes that are right all the way up. */
function forgeRoot(victim: Victim, change: (root: Uint8Array) => Uint8Array): void {
  const { store, name } = victim;
  const manifest = manifestIn(store, name);
  const pack = store.objects.get(`packs/${manifest.root.pack}`)!;
  const rootBytes = pack.byteLength - 80 - 64;
  const root = change(pack.slice(0, rootBytes));
  const hash = sha256(root);
  const { name: packName, tail } = encodePackTail(
    [
      {
        hash,
        check: hash,
        offset: 0,
        storedBytes: root.byteLength,
        contentBytes: root.byteLength,
        encoding: "raw",
        kind: "root",
      },
    ],
    new Uint8Array(16),
  );
  const forged = new Uint8Array(root.byteLength + tail.byteLength);
  forged.set(root);
  forged.set(tail, root.byteLength);
  replace(store, `packs/${packName}`, forged);
  const lie = { ...manifest, root: { pack: packName, packBytes: forged.byteLength, sha256: toHex(hash) } };
  replace(store, `manifests/${name}.json`, encodeManifest(lie));
}

/** A root index that lies: about lengths, places and packs, but not about hashes of what it leads to. */
function lieInRoot(random: Random, victim: Victim): void {
  forgeRoot(victim, (root) => {
    const view = new DataView(root.buffer, root.byteOffset, root.byteLength);
    const nodeBytes = view.getUint32(28, true);
    const chunks = Number(view.getBigUint64(16, true));
    const bitmap = Math.ceil(Math.ceil(chunks / 1024) / 8);
    const records = Math.floor((nodeBytes - bitmap) / 80);
    const number = random.below(2) === 0 ? pick(random, HUGE) >>> 0 : random.below(300_000);
    // Chunk size, packs, length of the node; or pack, offset, stored bytes, encoding of a record.
    if (random.below(3) === 0) view.setUint32(pick(random, [8, 12, 24, 28]), number, true);
    else if (random.below(4) === 0) view.setBigUint64(16, BigInt(number), true);
    else {
      const at = 64 + bitmap + 80 * random.below(Math.max(1, records));
      view.setUint32(at + pick(random, [64, 68, 72, 76]), number, true);
    }
    return root;
  });
}

/** Content that decompresses to more, or to something else, than was said. */
function bomb(random: Random, victim: Victim): void {
  const { store } = victim;
  const key = pick(random, keysOf(victim, "packs/"));
  const bytes = store.objects.get(key)!.slice();
  const content = new Uint8Array(pick(random, [4096, 65536, 2 ** 20, 16 * 2 ** 20]));
  const frame = Uint8Array.from(compress(content, 1));
  // Sometimes it says that it holds what is expected.
  if (random.below(2) === 0 && frame.byteLength > 9) {
    new DataView(frame.buffer).setUint32(pick(random, [5, 6]), 4096, true);
  }
  bytes.set(
    frame.subarray(0, bytes.byteLength),
    random.below(Math.max(1, bytes.byteLength - frame.byteLength)),
  );
  replace(store, key, bytes);
}

export const MUTATIONS: Readonly<Record<string, Mutation>> = {
  "bit flips": flipBits,
  truncation: truncate,
  oversize: extend,
  overwriting: overwrite,
  "swapped objects": swapObjects,
  "swapped chunks": swapChunks,
  "missing object": remove,
  "roll-back": rollBack,
  "lying manifest": lieInManifest,
  "lying index": lieInRoot,
  bomb,
};
