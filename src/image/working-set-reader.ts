// Replays a working set: its pack from the beginning to the last frame, each byte once.
//
//   local     frame by frame, with the disk told to be a few MiB ahead of us
//   remote    pieces of a MiB, several on their way at once, cut into frames as they come

import { MinorfaultError } from "../base/errors.ts";
import { badImage, contentInto, type Stored, type Unproven } from "./content.ts";
import { fromHex } from "./hash.ts";
import type { WorkingSetRun } from "./image.ts";
import { FRAME_BYTES_MAX, PAGE_BYTES } from "./limits.ts";
import type { ManifestWorkingSet } from "./manifest.ts";
import type { PackReader } from "./pack-reader.ts";
import {
  type DecodedList,
  decodeList,
  type Frame,
  listBytesMax,
  RUN_PAGES,
  ZERO_RUN,
} from "./working-set.ts";

/** LIMIT: pieces that are on their way at once. */
const PIECES_MAX = 8;
const PIECE_BYTES = 2 ** 20;
/** LIMIT: what the disk is asked for ahead of a local reader; and before anything has been read: to ask takes time as well. */
const AHEAD_BYTES = 8 * 2 ** 20;
const FIRST_BYTES = 2 * 2 ** 20;
/** What the disk is told at once: it reads no more for one call than its own read-ahead. */
const AHEAD_STEP_BYTES = 2 * 2 ** 20;

/** The frames of one working set, in order; to be opened, and then asked for each of them once. */
export class FrameReader {
  readonly set: ManifestWorkingSet;
  readonly #packs: PackReader;
  readonly #imageBytes: number;
  readonly #signal: AbortSignal | undefined;
  readonly #what: string;
  /** Undefined where everything is read at once. */
  #stream: Stream | undefined;
  #frames: readonly Frame[] = [];
  #frame = 0;
  /** Of the next frame in the pack. */
  #at = 0;
  #end: number;
  #expected = 0;

  /** Sets the disk to work, if there is one. */
  constructor(packs: PackReader, set: ManifestWorkingSet, imageBytes: number, signal?: AbortSignal) {
    this.#packs = packs;
    this.set = set;
    this.#imageBytes = imageBytes;
    this.#signal = signal;
    this.#what = `working set ${set.name}`;
    this.#end = set.packBytes;
    if (set.listBytes > listBytesMax(set.pages) || set.listBytes > set.packBytes) {
      throw badImage(`${this.#what} has a list of ${set.listBytes} bytes`);
    }
    if (packs.isSync(set.pack)) this.#expect(FIRST_BYTES);
    else this.#stream = new Stream(packs, set.pack, set.packBytes, signal);
  }

  /** The list of what comes. */
  async open(): Promise<DecodedList> {
    const { listBytes, listSha256 } = this.set;
    const hash = fromHex(listSha256);
    const entry = { hash, encoding: "raw", storedBytes: listBytes, contentBytes: listBytes } as const;
    const bytes = new Uint8Array(listBytes);
    await this.#read(entry, bytes, () => this.#what);
    const list = decodeList(bytes, this.#imageBytes, this.#what);
    this.#frames = list.frames;
    const end = list.frames.reduce((sum, { storedBytes }) => sum + storedBytes, listBytes);
    if (end > this.set.packBytes) {
      throw badImage(`Frames end at ${end}, their pack at ${this.set.packBytes}`);
    }
    this.#end = end;
    this.#stream?.endAt(end);
    return list;
  }

  /**
   * Writes the content of the next frame to the beginning of a target, which may hold anything if this fails. Answers
   * undefined when that was done at once.
   */
  next(target: Uint8Array): Promise<void> | undefined {
    const index = this.#frame++;
    const frame = this.#frames[index];
    if (frame === undefined) throw new MinorfaultError("ERR_BUG", `${this.#what} has no frame ${index}`);
    const entry: Stored = { ...frame, hash: frame.check };
    return this.#read(entry, target.subarray(0, frame.contentBytes), () => this.#frameText(index));
  }

  /**
   * The same at once, for somebody else to verify: content that is stored as it is. Undefined where that is not so, and `next`
   * has to be asked.
   */
  nextUnproven(target: Uint8Array): Unproven | undefined {
    const index = this.#frame;
    const frame = this.#frames[index];
    if (this.#stream !== undefined || frame?.encoding !== "raw") return undefined;
    this.#signal?.throwIfAborted();
    const { check, contentBytes: byteLength } = frame;
    const part = target.subarray(0, byteLength);
    if (!this.#packs.storedIntoSync(this.set.pack, this.#at, part)) return undefined;
    this.#frame++;
    this.#at += byteLength;
    this.#expect(AHEAD_BYTES);
    // A copy: it lies in the list, all of which would be posted with it.
    return { sha256: check.slice(), byteLength, what: this.#frameText(index) };
  }

  #frameText(index: number): string {
    return `frame ${index} of ${this.#what}`;
  }

  #read(entry: Stored, target: Uint8Array, what: () => string): Promise<void> | undefined {
    const place = { ...entry, offset: this.#at };
    this.#at += entry.storedBytes;
    if (this.#stream !== undefined) return this.#stream.take(entry, target, what);
    this.#signal?.throwIfAborted();
    this.#packs.contentIntoSync(this.set.pack, place, target, what);
    this.#expect(AHEAD_BYTES);
    return undefined;
  }

  /** Keeps the disk so far ahead. */
  #expect(aheadBytes: number): void {
    const until = Math.min(this.#end, this.#at + aheadBytes);
    while (this.#expected < until && this.#expected - this.#at <= aheadBytes - AHEAD_STEP_BYTES) {
      const byteLength = Math.min(AHEAD_STEP_BYTES, this.#end - this.#expected);
      this.#packs.expect(this.set.pack, this.#expected, byteLength);
      this.#expected += byteLength;
    }
  }
}

/** `begin` is called when the first run is asked for. */
export async function* readWorkingSet(begin: () => FrameReader): AsyncIterable<WorkingSetRun> {
  const reader = begin();
  const { frames, runs } = await reader.open();
  const zeros = new Uint8Array(FRAME_BYTES_MAX);
  const content = new Uint8Array(FRAME_BYTES_MAX);
  let frame = 0;
  let filled = 0;
  let used = 0;
  for (let at = 0; at < runs.length; at += 2) {
    const byteLength = (runs[at + 1]! & RUN_PAGES) * PAGE_BYTES;
    const offset = runs[at]! * PAGE_BYTES;
    if (runs[at + 1]! >= ZERO_RUN) {
      yield* zeroRuns(offset, byteLength, zeros);
      continue;
    }
    if (used === filled) {
      filled = frames[frame++]!.contentBytes;
      await reader.next(content);
      used = 0;
    }
    yield { offset, bytes: content.subarray(used, used + byteLength), isZero: false };
    used += byteLength;
  }
}

function* zeroRuns(offset: number, byteLength: number, zeros: Uint8Array): Iterable<WorkingSetRun> {
  for (let at = 0; at < byteLength; at += zeros.byteLength) {
    const bytes = zeros.subarray(0, Math.min(zeros.byteLength, byteLength - at));
    yield { offset: offset + at, bytes, isZero: true };
  }
}

/** The bytes of a pack from its beginning, in pieces that are asked for before they are needed. */
class Stream {
  readonly #packs: PackReader;
  readonly #pack: string;
  readonly #signal: AbortSignal | undefined;
  readonly #pieces: Promise<Uint8Array>[] = [];
  #end: number;
  #at = 0;
  #piece: Uint8Array = new Uint8Array(0);
  #used = 0;

  constructor(packs: PackReader, pack: string, end: number, signal?: AbortSignal) {
    this.#packs = packs;
    this.#pack = pack;
    this.#end = end;
    this.#signal = signal;
    this.#ask();
  }

  /** What lies behind is of no use to us: the table. */
  endAt(end: number): void {
    this.#end = Math.max(end, this.#at);
  }

  /** The content of the next bytes. */
  async take(entry: Stored, target: Uint8Array, what: () => string): Promise<void> {
    const stored = await this.#next(entry.storedBytes);
    contentInto(stored, entry, target, what);
  }

  /** A view where they lie in one piece. */
  async #next(byteLength: number): Promise<Uint8Array> {
    if (this.#used === this.#piece.byteLength) await this.#advance();
    if (this.#used + byteLength <= this.#piece.byteLength) {
      this.#used += byteLength;
      return this.#piece.subarray(this.#used - byteLength, this.#used);
    }
    const target = new Uint8Array(byteLength);
    for (let done = 0; done < byteLength; ) {
      if (this.#used === this.#piece.byteLength) await this.#advance();
      const part = this.#piece.subarray(this.#used, this.#used + byteLength - done);
      target.set(part, done);
      done += part.byteLength;
      this.#used += part.byteLength;
    }
    return target;
  }

  async #advance(): Promise<void> {
    const next = this.#pieces.shift();
    if (next === undefined) throw badImage("A working set ends before its last frame");
    this.#piece = await next;
    this.#used = 0;
    this.#ask();
  }

  #ask(): void {
    while (this.#pieces.length < PIECES_MAX && this.#at < this.#end) {
      const piece = new Uint8Array(Math.min(PIECE_BYTES, this.#end - this.#at));
      const reading = this.#packs.read(this.#pack, this.#at, piece, this.#signal).then(() => piece);
      // Whoever stops in the middle never asks for it.
      reading.catch((error: unknown) => error instanceof MinorfaultError);
      this.#pieces.push(reading);
      this.#at += piece.byteLength;
    }
  }
}
