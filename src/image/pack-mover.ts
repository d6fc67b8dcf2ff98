// Moves what is needed of packs into new ones, and knows afterwards where each piece has gone.
//
//   old   │▓░░▓░░░░│ │░░▓░░▓░░│      new   │▓▓▓▓│      all of an old pack goes into one new pack
//
// So a list of packs is mapped name by name: lists that begin alike still do, and children go on sharing index pages
// with their parents. Index pages are not moved: they speak of places, and are written anew.

import { MinorfaultError } from "../base/errors.ts";
import { contentOf } from "./content.ts";
import type { IndexRecord } from "./index-node.ts";
import { PACK_BYTES, PACK_ENTRIES_MAX } from "./limits.ts";
import type { PackEntry } from "./pack.ts";
import type { PackReader } from "./pack-reader.ts";
import type { PackUse } from "./pack-usage.ts";
import type { PackWriter } from "./pack-writer.ts";

/** LIMIT: bytes of one read. */
const READ_BYTES_MAX = 4 * 2 ** 20;

interface Move {
  readonly use: PackUse;
  /** Number of the new pack among the writer's. */
  readonly written: number;
  /** Offsets in the new pack, by the entries of the old one. */
  readonly offsets: Uint32Array;
}

export class PackMover {
  readonly #reader: PackReader;
  readonly #writer: PackWriter;
  readonly #moves = new Map<string, Move>();
  /** Packs that images list and nothing is needed of: they leave the lists. */
  readonly #dropped: Set<string>;
  #pendingBytes = 0;
  #pendingEntries = 0;

  /** `writer` finishes packs when it is told to, never by itself. */
  constructor(reader: PackReader, writer: PackWriter, dropped: Iterable<string>) {
    this.#reader = reader;
    this.#writer = writer;
    this.#dropped = new Set(dropped);
  }

  /** Packs that nobody needs any more, once all images have been told. */
  gone(): Set<string> {
    return new Set([...this.#moves.keys(), ...this.#dropped]);
  }

  /** Verifies and moves what is needed of a pack. Throws when anything of it is wrong; then nothing has moved. */
  async move(use: PackUse, signal?: AbortSignal): Promise<void> {
    const { entries } = await this.#reader.table(use.name, signal);
    const needed = entries.filter(({ kind }, entry) => use.isLive[entry] === 1 && kind !== "index page");
    const pieces = await this.#read(use.name, needed, signal);
    const byteLength = needed.reduce((sum, { storedBytes }) => sum + storedBytes, 0);
    const hasRoom =
      this.#pendingBytes + byteLength <= PACK_BYTES &&
      this.#pendingEntries + needed.length <= PACK_ENTRIES_MAX;
    if (!hasRoom) await this.finish();
    const offsets = new Uint32Array(use.offsets.length);
    const written = this.#writer.written.length;
    for (const [index, entry] of needed.entries()) {
      const { offset } = await this.#writer.add(pieces[index]!, entry);
      offsets[use.entryAt(entry.offset)] = offset;
    }
    this.#pendingBytes += byteLength;
    this.#pendingEntries += needed.length;
    if (needed.length === 0) this.#dropped.add(use.name);
    else this.#moves.set(use.name, { use, written, offsets });
  }

  async finish(): Promise<void> {
    await this.#writer.finish();
    this.#pendingBytes = 0;
    this.#pendingEntries = 0;
  }

  /** A list of packs with new ones in the places of the old, each once; and the number that each old number becomes. */
  mapped(names: readonly string[]): { packs: string[]; numbers: (number | undefined)[] } {
    const packs: string[] = [];
    const places = new Map<string, number>();
    const numbers = names.map((name) => {
      if (this.#dropped.has(name)) return undefined;
      const now = this.#newName(name) ?? name;
      const place = places.get(now) ?? packs.push(now) - 1;
      places.set(now, place);
      return place;
    });
    return { packs, numbers };
  }

  /** What a record says in an image whose list of packs was mapped; `pack` is the name of the record's. */
  translated(record: IndexRecord, pack: string, numbers: readonly (number | undefined)[]): IndexRecord {
    const number = numbers[record.pack];
    if (number === undefined) throw new MinorfaultError("ERR_BUG", `Pack ${pack} was dropped and is needed`);
    return { ...record, pack: number, offset: this.#newOffset(pack, record.offset) };
  }

  /** The same place, or where it is now. */
  place<P extends { readonly pack: string; readonly offset: number }>(place: P): P {
    const pack = this.#newName(place.pack);
    return pack === undefined ? place : { ...place, pack, offset: this.#newOffset(place.pack, place.offset) };
  }

  #newName(pack: string): string | undefined {
    const move = this.#moves.get(pack);
    return move && this.#writer.written[move.written]!.name;
  }

  #newOffset(pack: string, offset: number): number {
    const move = this.#moves.get(pack);
    if (move === undefined) return offset;
    const entry = move.use.entryAt(offset);
    if (move.use.isLive[entry] === 1) return move.offsets[entry]!;
    throw new MinorfaultError("ERR_BUG", `Offset ${offset} of pack ${pack} was not moved`);
  }

  /** Pieces of a pack, verified; neighbours are read at once. */
  async #read(pack: string, entries: readonly PackEntry[], signal?: AbortSignal): Promise<Uint8Array[]> {
    const pieces: Uint8Array[] = [];
    for (let first = 0; first < entries.length; ) {
      const start = entries[first]!.offset;
      let until = first;
      let end = start;
      while (until < entries.length && entries[until]!.offset === end) {
        const next = end + entries[until]!.storedBytes;
        if (until > first && next - start > READ_BYTES_MAX) break;
        end = next;
        until++;
      }
      const bytes = new Uint8Array(end - start);
      await this.#reader.read(pack, start, bytes, signal);
      for (const entry of entries.slice(first, until)) {
        const { offset, storedBytes } = entry;
        const piece = bytes.subarray(offset - start, offset - start + storedBytes);
        contentOf(piece, entry, () => `what is at ${offset} of pack ${pack}`, { both: true });
        pieces.push(piece);
      }
      first = until;
    }
    return pieces;
  }
}
