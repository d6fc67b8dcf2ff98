// Reads from the packs of one store: keeps some of them open, and turns stored bytes into verified content.
//
// Where a source can be read without waiting (a local file), that is how it is read: an image behind a pager may not
// wait for libuv's threads, which may be standing in faults that the read would end.

import { MinorfaultError } from "../base/errors.ts";
import type { ObjectStore } from "../source/object-store.ts";
import type { PageSource } from "../source/page-source.ts";
import { badImage, contentInto, contentOf, type Stored } from "./content.ts";
import { packKey } from "./names.ts";
import {
  decodePackTable,
  PACK_ENTRY_BYTES,
  PACK_FOOTER_BYTES,
  type PackTable,
  packTailBytes,
  packText,
} from "./pack.ts";

/** LIMIT: packs that are open at once; those used longest ago are closed. */
const OPEN_MAX = 128;
/** Enough for the table of most packs, so that one read does. */
const TAIL_GUESS = PACK_FOOTER_BYTES + 2048 * PACK_ENTRY_BYTES;

/** What most stored chunks fit into. */
const SCRATCH_BYTES = 64 * 2 ** 10;

interface Opened {
  readonly opening: Promise<PageSource>;
  source?: PageSource;
  readers: number;
}

export interface Place extends Stored {
  readonly offset: number;
}

export class PackReader {
  readonly store: ObjectStore;
  /** In the order of their use. */
  readonly #opened = new Map<string, Opened>();
  /** Buffers that nobody uses now: as many as there were reads at once. */
  readonly #scratch: Uint8Array[] = [];
  #isClosed = false;

  constructor(store: ObjectStore) {
    this.store = store;
  }

  /** The content at a place of a pack, verified. */
  async content(pack: string, place: Place, what: () => string, signal?: AbortSignal): Promise<Uint8Array> {
    const stored = new Uint8Array(place.storedBytes);
    await this.read(pack, place.offset, stored, signal);
    return contentOf(stored, place, what);
  }

  /** The same into a target, which may hold anything when this throws. */
  async contentInto(
    pack: string,
    place: Place,
    target: Uint8Array,
    what: () => string,
    signal?: AbortSignal,
  ): Promise<void> {
    const scratch = this.#takeScratch(place.storedBytes);
    try {
      const stored = scratch.subarray(0, place.storedBytes);
      await this.read(pack, place.offset, stored, signal);
      contentInto(stored, place, target, what);
    } finally {
      this.#scratch.push(scratch);
    }
  }

  /** Content of places that follow one another from `offset` on, by one read; tells how each has ended. */
  async contentsInto(
    pack: string,
    offset: number,
    places: readonly Place[],
    targets: readonly Uint8Array[],
    what: (index: number) => string,
    signal: AbortSignal,
    end: (index: number, result: "bytes" | "failed", error?: unknown) => void,
  ): Promise<void> {
    const stored = new Uint8Array(places.reduce((sum, { storedBytes }) => sum + storedBytes, 0));
    await this.read(pack, offset, stored, signal);
    for (const [index, place] of places.entries()) {
      const from = place.offset - offset;
      try {
        const bytes = stored.subarray(from, from + place.storedBytes);
        contentInto(bytes, place, targets[index]!, () => what(index));
        end(index, "bytes");
      } catch (error) {
        end(index, "failed", error);
      }
    }
  }

  /**
   * Into a target without waiting: it holds bytes that are not verified while this runs, and after it has thrown. False
   * when the pack can't be read so.
   */
  contentIntoSync(pack: string, place: Place, target: Uint8Array, what: () => string): boolean {
    const source = this.#openedSync(pack)?.source;
    if (source?.readSync === undefined) return false;
    checkWithin(source, pack, place.offset, place.storedBytes);
    if (place.encoding === "raw" && place.storedBytes === target.byteLength) {
      source.readSync(place.offset, target);
      contentOf(target, place, what);
      return true;
    }
    const scratch = this.#takeScratch(place.storedBytes);
    try {
      const stored = scratch.subarray(0, place.storedBytes);
      source.readSync(place.offset, stored);
      contentInto(stored, place, target, what);
    } finally {
      this.#scratch.push(scratch);
    }
    return true;
  }

  /** As it is stored, without waiting, and not verified. False when the pack can't be read so. */
  storedIntoSync(pack: string, offset: number, target: Uint8Array): boolean {
    const source = this.#openedSync(pack)?.source;
    if (source?.readSync === undefined) return false;
    checkWithin(source, pack, offset, target.byteLength);
    source.readSync(offset, target);
    return true;
  }

  /** Content without waiting; undefined when the pack can't be read so. */
  contentSync(pack: string, place: Place, what: () => string): Uint8Array | undefined {
    const opened = this.#openedSync(pack);
    if (opened?.source?.readSync === undefined) return undefined;
    const stored = new Uint8Array(place.storedBytes);
    checkWithin(opened.source, pack, place.offset, place.storedBytes);
    opened.source.readSync(place.offset, stored);
    return contentOf(stored, place, what);
  }

  /**
   * A pack as it is stored, where it can be opened without waiting; not the caller's to close, and closed some time later. What
   * is wrong with it shows when it is read.
   */
  atHand(pack: string): PageSource | undefined {
    try {
      return this.#openedSync(pack)?.source;
    } catch (error) {
      if (!(error instanceof MinorfaultError)) throw error;
      return undefined;
    }
  }

  /** Whether packs can be opened without waiting. */
  get isAtHand(): boolean {
    return this.store.openSync !== undefined;
  }

  /** Whether reads of this pack are made at once. */
  isSync(pack: string): boolean {
    return this.#openedSync(pack)?.source?.readSync !== undefined;
  }

  /** These bytes of a pack will be read soon; where that is of use, and the pack is at hand. */
  expect(pack: string, offset: number, byteLength: number): void {
    this.atHand(pack)?.expect?.(offset, byteLength);
  }

  /** Bytes of a pack as they are stored. */
  async read(pack: string, offset: number, target: Uint8Array, signal?: AbortSignal): Promise<void> {
    if (this.#opensAt(pack, target) && (await this.#openAt(pack, offset, target, signal))) return;
    await this.#with(pack, (source) => {
      checkWithin(source, pack, offset, target.byteLength);
      return fill(source, offset, target, signal);
    });
  }

  /** The table of a pack; its name proves it. */
  async table(pack: string, signal?: AbortSignal): Promise<PackTable> {
    return (await this.tail(pack, signal)).table;
  }

  /**
   * The same with what was read to get it: of a small pack that is all of it. `packBytes`: how long the pack should be, if
   * that is known.
   */
  async tail(
    pack: string,
    signal?: AbortSignal,
    packBytes = 0,
  ): Promise<{ table: PackTable; tail: Uint8Array }> {
    const guess = new Uint8Array(tailGuess({ byteLength: packBytes }));
    const from = packBytes - guess.byteLength;
    const isRead = this.#opensAt(pack, guess) && (await this.#openAt(pack, from, guess, signal));
    return this.#with(pack, async (source) => {
      let tail = isRead && source.byteLength === packBytes ? guess : undefined;
      let length = tail === undefined ? tailGuess(source) : tailNeeded(tail, source, pack);
      while (tail?.byteLength !== length) {
        tail = new Uint8Array(length);
        await fill(source, source.byteLength - length, tail, signal);
        length = tailNeeded(tail, source, pack);
      }
      return { table: decodePackTable(tail, pack, source.byteLength), tail };
    });
  }

  /** A table without waiting; undefined when the pack can't be read so. */
  tableSync(pack: string): PackTable | undefined {
    const source = this.#openedSync(pack)?.source;
    if (source?.readSync === undefined) return undefined;
    let tail: Uint8Array | undefined;
    for (let length = tailGuess(source); tail?.byteLength !== length; ) {
      tail = new Uint8Array(length);
      source.readSync(source.byteLength - length, tail);
      length = tailNeeded(tail, source, pack);
    }
    return decodePackTable(tail, pack, source.byteLength);
  }

  /** Whether a pack is opened by the request that reads these bytes. */
  #opensAt(pack: string, { byteLength }: Uint8Array): boolean {
    return byteLength > 0 && this.store.openAt !== undefined && this.#opened.get(pack)?.source === undefined;
  }

  /** Those who read at the same moment ask for theirs themselves. False where it has to be opened first. */
  async #openAt(pack: string, offset: number, target: Uint8Array, signal?: AbortSignal): Promise<boolean> {
    let source: PageSource;
    try {
      source = await this.store.openAt!(packKey(pack), offset, target, signal);
    } catch (error) {
      // What that says of the image is found out when the pack's length is known.
      const isShorter = error instanceof MinorfaultError && error.code === "ERR_OUT_OF_RANGE";
      if (isShorter && !this.#isClosed) return false;
      throw error;
    }
    if (this.#isClosed || this.#opened.has(pack)) await source.close();
    else this.#opened.set(pack, { opening: Promise.resolve(source), source, readers: 0 });
    this.#closeSome();
    return true;
  }

  #takeScratch(byteLength: number): Uint8Array {
    const scratch = this.#scratch.pop();
    if (scratch !== undefined && scratch.byteLength >= byteLength) return scratch;
    return Buffer.allocUnsafeSlow(Math.max(byteLength, SCRATCH_BYTES));
  }

  /** What is at hand is closed when this returns: a thread that has no event loop need not wait for it. */
  async close(): Promise<void> {
    this.#isClosed = true;
    const all = [...this.#opened.values()];
    this.#opened.clear();
    await Promise.all(all.map((opened) => closeQuietly(opened)));
  }

  async #with<T>(pack: string, use: (source: PageSource) => Promise<T>): Promise<T> {
    const opened = this.#opened.get(pack) ?? this.#open(pack);
    this.#touch(pack, opened);
    opened.readers++;
    try {
      return await use(opened.source ?? (await opened.opening));
    } catch (error) {
      // A pack that was replaced or whose server broke may be read again; then with a new source.
      if (opened.source === undefined) this.#opened.delete(pack);
      throw error;
    } finally {
      opened.readers--;
      this.#closeSome();
    }
  }

  /** A pack that is open, or can be opened without waiting. */
  #openedSync(pack: string): Opened | undefined {
    const known = this.#opened.get(pack);
    if (known === undefined) return this.#openAtOnce(pack);
    this.#touch(pack, known);
    return known;
  }

  /** Apart, since it is rare: what is compiled for reading does not hold for one kind of store only. */
  #openAtOnce(pack: string): Opened | undefined {
    if (this.store.openSync === undefined) return undefined;
    const source = this.store.openSync(packKey(pack));
    const opened: Opened = { opening: Promise.resolve(source), source, readers: 0 };
    this.#opened.set(pack, opened);
    this.#closeSome();
    return opened;
  }

  #open(pack: string): Opened {
    const opened: Opened = {
      opening: this.store.open(packKey(pack)).then((source) => {
        opened.source = source;
        return source;
      }),
      readers: 0,
    };
    this.#opened.set(pack, opened);
    return opened;
  }

  #touch(pack: string, opened: Opened): void {
    this.#opened.delete(pack);
    this.#opened.set(pack, opened);
  }

  #closeSome(): void {
    if (this.#opened.size <= OPEN_MAX) return;
    for (const [pack, opened] of this.#opened) {
      if (opened.readers > 0) continue;
      this.#opened.delete(pack);
      void closeQuietly(opened);
      if (this.#opened.size <= OPEN_MAX) return;
    }
  }
}

function tailGuess({ byteLength }: Pick<PageSource, "byteLength">): number {
  return Math.min(byteLength, TAIL_GUESS);
}

/** How long a tail has to be read; as long as this one if it is enough. */
function tailNeeded(tail: Uint8Array, { byteLength }: PageSource, pack: string): number {
  const needed = packTailBytes(tail, pack);
  if (needed > byteLength) throw badImage(`${packText(pack)} is shorter than its table`);
  return Math.max(needed, tail.byteLength);
}

/** Fills the target without waiting where that is possible. */
export async function fill(
  source: PageSource,
  offset: number,
  target: Uint8Array,
  signal?: AbortSignal,
): Promise<void> {
  signal?.throwIfAborted();
  if (source.readSync !== undefined) source.readSync(offset, target);
  else await source.read(offset, target, signal);
}

/** A record that points beyond its pack is the image's fault, not the caller's. */
function checkWithin(source: PageSource, pack: string, offset: number, byteLength: number): void {
  if (offset + byteLength <= source.byteLength) return;
  throw badImage(
    `${packText(pack)} has ${source.byteLength} bytes, content of ${byteLength} is said to be at ${offset}`,
  );
}

async function closeQuietly(opened: Opened): Promise<void> {
  try {
    // At once where it can be: in a thread that serves nothing comes after an `await`.
    await (opened.source ?? (await opened.opening)).close();
  } catch (error) {
    // What could not be opened needs no closing.
    if (!(error instanceof MinorfaultError)) throw error;
  }
}
