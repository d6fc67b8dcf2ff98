// Random corruptions of a store, one at a time: what is read afterwards is right, or an error of the catalogue; and
// a target that was handed in for a chunk holds the right bytes or what it held before.

import { MinorfaultError } from "../../src/base/errors.ts";
import { Random } from "../../src/base/random.ts";
import { addWorkingSet, buildImage, type Image, openImageIn } from "../../src/image/index.ts";
import { MemorySource } from "../../src/source/index.ts";
import { seededNonce } from "../image/content.ts";
import { MemoryStore } from "../image/memory-store.ts";
import { MUTATIONS, type Victim } from "./mutations.ts";

const NAME = "it";
const CHUNK = 4096;
/** Three index pages, of which few chunks are stored. */
const CHUNKS = 2500;
const STATE = Uint8Array.from({ length: 3000 }, (_, index) => index * 13);
const UNTOUCHED = 0xa5;

export interface FuzzResult {
  readonly count: number;
  /** By mutation: how often an error came, and how often what was read was right all the same. */
  readonly outcomes: Readonly<Record<string, { refused: number; harmless: number }>>;
  readonly codes: Readonly<Record<string, number>>;
  /** What must never be: the iteration, the mutation, and what was seen. */
  readonly failures: readonly string[];
}

/** The contents that a read may give, by chunk; all chunks of one version. */
interface Version {
  readonly digest: string;
  readonly chunks: ReadonlyMap<number, Uint8Array>;
}

interface Scene {
  /** Objects that the current image is read from. */
  readonly keys: readonly string[];
  /** Chunks that are read: all that are stored in one of the versions, and some that are zeros. */
  readonly probes: readonly number[];
  readonly now: MemoryStore;
  readonly past: MemoryStore;
  readonly current: Version;
  readonly former: Version;
}

export async function fuzzImages(
  count: number,
  seed: number,
  onProgress: (done: number) => void = () => {},
): Promise<FuzzResult> {
  const random = new Random(seed);
  const scene = await makeScene(random);
  const names = Object.keys(MUTATIONS);
  const outcomes: Record<string, { refused: number; harmless: number }> = {};
  const codes: Record<string, number> = {};
  const failures: string[] = [];
  for (let iteration = 0; iteration < count; iteration++) {
    const name = names[iteration % names.length]!;
    const store = new MemoryStore(scene.now.objects);
    const victim: Victim = { store, past: scene.past, name: NAME, keys: scene.keys };
    MUTATIONS[name]!(random, victim);
    const isPinned = random.below(2) === 0;
    outcomes[name] ??= { refused: 0, harmless: 0 };
    try {
      const seen = await readEverything(store, scene, isPinned);
      for (const code of seen.codes) codes[code] = (codes[code] ?? 0) + 1;
      outcomes[name][seen.codes.length > 0 ? "refused" : "harmless"]++;
      if (seen.wrong !== undefined) failures.push(`${iteration}, ${name}: ${seen.wrong}`);
    } catch (error) {
      failures.push(`${iteration}, ${name}: ${error instanceof Error ? error.stack : String(error)}`);
    }
    if (iteration % 500 === 0) onProgress(iteration);
  }
  return { count, outcomes, codes, failures };
}

async function makeScene(random: Random): Promise<Scene> {
  const past = new MemoryStore();
  const nonce = seededNonce(random);
  const chunks = new Map<number, Uint8Array>();
  for (const chunk of random.sample(30, CHUNKS)) chunks.set(chunk, chunkOf(random));
  const build = async (store: MemoryStore, name: string): Promise<Version> => {
    const bytes = new Uint8Array(CHUNKS * CHUNK);
    for (const [chunk, content] of chunks) bytes.set(content, chunk * CHUNK);
    await buildImage(store, name, {
      regions: [{ name: "ram", guestAddress: CHUNK, source: new MemorySource(bytes) }],
      chunkBytes: CHUNK,
      packBytes: 10 * CHUNK,
      attachments: [{ name: "state", bytes: STATE }],
      notes: { kernel: "6.18" },
      nonce,
    });
    const touched = [...chunks.keys()].slice(3, 20).flatMap((chunk) => [chunk, (chunk + 1) % CHUNKS]);
    await addWorkingSet(
      store,
      name,
      "boot",
      touched.map((chunk) => chunk * CHUNK),
      { nonce },
    );
    const image = await openImageIn(store, name);
    return { digest: image.digest, chunks: new Map(chunks) };
  };
  const former = await build(past, NAME);
  const now = new MemoryStore(past.objects);
  // The other image has other chunks in the same places, and some of the same ones.
  for (const chunk of [...chunks.keys()].slice(0, 10)) chunks.set(chunk, chunkOf(random));
  await build(now, "other");
  for (const chunk of [...chunks.keys()].slice(5, 15)) chunks.set(chunk, chunkOf(random));
  const current = await build(now, NAME);
  const probes = [
    ...new Set([...former.chunks.keys(), ...current.chunks.keys(), ...random.sample(40, CHUNKS)]),
  ];
  now.bytesRead.clear();
  const seen = await readEverything(now, { now, past, former, current, probes, keys: [] }, true);
  if (seen.codes.length > 0 || seen.wrong !== undefined) throw new Error(`The scene is wrong: ${seen.wrong}`);
  const keys = [`manifests/${NAME}.json`, ...now.bytesRead.keys()];
  return { now, past, former, current, probes, keys };
}

/** One of three: incompressible, compressible, of one byte. */
function chunkOf(random: Random): Uint8Array {
  const kind = random.below(3);
  const seed = random.uint32();
  return Uint8Array.from({ length: CHUNK }, (_, index) =>
    kind === 0 ? random.uint32() : kind === 1 ? (seed >> (index & 7)) | 1 : seed | 1,
  );
}

interface Seen {
  /** Codes of the errors that came. */
  readonly codes: readonly string[];
  /** What was not as it must be. */
  readonly wrong: string | undefined;
}

async function readEverything(store: MemoryStore, scene: Scene, isPinned: boolean): Promise<Seen> {
  const codes: string[] = [];
  let wrong: string | undefined;
  /** Runs a read; errors of sources are what we want to see, any other is a failure. */
  const attempt = async (work: () => Promise<string | undefined>): Promise<boolean> => {
    try {
      wrong ??= await work();
      return true;
    } catch (error) {
      if (!(error instanceof MinorfaultError) || error.kind !== "source") throw error;
      codes.push(error.code);
      return false;
    }
  };
  let image: Image | undefined;
  const pin = isPinned ? { digest: scene.current.digest } : {};
  await attempt(async () => {
    image = await openImageIn(store, NAME, pin);
    return undefined;
  });
  if (image === undefined) return { codes, wrong };
  const opened = image;
  // A manifest that was rolled back as a whole is an old image, and must be that one in all its parts.
  const version = opened.digest === scene.former.digest ? scene.former : scene.current;
  if (isPinned && version !== scene.current) return { codes, wrong: "a pinned image was rolled back" };
  const target = new Uint8Array(opened.chunkBytes);
  for (const chunk of opened.chunkBytes === CHUNK ? scene.probes : []) {
    const expected = version.chunks.get(chunk);
    target.fill(UNTOUCHED);
    const isRead = await attempt(async () => {
      await opened.readChunk(chunk, target);
      return isSame(target, expected) ? undefined : `chunk ${chunk} has wrong bytes`;
    });
    if (!isRead && target.some((byte) => byte !== UNTOUCHED)) wrong ??= `chunk ${chunk} was touched`;
  }
  await attempt(() => readSet(opened, version));
  await attempt(async () => {
    const state = await opened.readAttachment("state");
    return Buffer.compare(state, STATE) === 0 ? undefined : "the attachment has wrong bytes";
  });
  await opened.close();
  return { codes, wrong };
}

async function readSet(image: Image, version: Version): Promise<string | undefined> {
  if (!image.workingSets().includes("boot")) return "the working set is gone";
  for await (const { offset, bytes } of image.readWorkingSet("boot")) {
    for (let at = 0; at < bytes.byteLength; at += CHUNK) {
      const chunk = (offset + at) / CHUNK;
      if (isSame(bytes.subarray(at, at + CHUNK), version.chunks.get(chunk))) continue;
      return `page ${chunk} of the working set has wrong bytes`;
    }
  }
  return undefined;
}

function isSame(bytes: Uint8Array, expected: Uint8Array | undefined): boolean {
  return expected === undefined ? bytes.every((byte) => byte === 0) : Buffer.compare(bytes, expected) === 0;
}
