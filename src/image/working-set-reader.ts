// Replays a working set: one sequential read of its pack in large pieces, the next one on its way while the present
// one is verified and handed out.

import { MinorfaultError } from "../base/errors.ts";
import { badImage, contentOf, type Stored } from "./content.ts";
import { fromHex } from "./hash.ts";
import type { WorkingSetRun } from "./image.ts";
import { FRAME_BYTES_MAX, PAGE_BYTES } from "./limits.ts";
import type { ManifestWorkingSet } from "./manifest.ts";
import type { PackReader } from "./pack-reader.ts";
import { decodeList, listBytesMax } from "./working-set.ts";

/** LIMIT: bytes of one read; two of them are in memory. The first is small, so that the guest has something soon. */
const PIECE_BYTES = 2 * 2 ** 20;
const FIRST_PIECE_BYTES = 256 * 2 ** 10;

export async function* readWorkingSet(
  packs: PackReader,
  set: ManifestWorkingSet,
  imageBytes: number,
  signal?: AbortSignal,
): AsyncIterable<WorkingSetRun> {
  const what = `working set ${set.name}`;
  if (set.listBytes > listBytesMax(set.pages) || set.listBytes > set.packBytes) {
    throw badImage(`${what} has a list of ${set.listBytes} bytes`);
  }
  const stream = new Stream(packs, set.pack, set.listBytes, set.packBytes, signal);
  const listEntry = {
    hash: fromHex(set.listSha256),
    encoding: "raw",
    storedBytes: set.listBytes,
    contentBytes: set.listBytes,
  } as const;
  // A copy: what the stream hands out is overwritten as it goes on.
  const listBytes = new Uint8Array(contentOf(await stream.take(set.listBytes), listEntry, () => what));
  const list = decodeList(listBytes, imageBytes, what);
  const end = list.frames.reduce((sum, { storedBytes }) => sum + storedBytes, set.listBytes);
  stream.endAt(end);
  const zeros = new Uint8Array(FRAME_BYTES_MAX);
  let frame = 0;
  let content: Uint8Array = new Uint8Array(0);
  let used = 0;
  for (const run of list.runs) {
    const byteLength = run.pages * PAGE_BYTES;
    const offset = run.page * PAGE_BYTES;
    if (run.isZero) {
      yield* zeroRuns(offset, byteLength, zeros);
      continue;
    }
    if (used === content.byteLength) {
      const found = list.frames[frame]!;
      const entry: Stored = { ...found, hash: found.check };
      const index = frame++;
      content = contentOf(await stream.take(entry.storedBytes), entry, () => `frame ${index} of ${what}`);
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

/** The bytes of a pack from its beginning, one read ahead. */
class Stream {
  readonly #packs: PackReader;
  readonly #pack: string;
  readonly #signal: AbortSignal | undefined;
  #end: number;
  #at = 0;
  readonly #buffers: Buffer<ArrayBuffer>[] = [];
  #turn = 0;
  #piece: Uint8Array = new Uint8Array(0);
  #used = 0;
  #next: Promise<Uint8Array> | undefined;

  constructor(packs: PackReader, pack: string, first: number, end: number, signal?: AbortSignal) {
    this.#packs = packs;
    this.#pack = pack;
    this.#end = end;
    this.#signal = signal;
    this.#next = this.#read(Math.max(first, FIRST_PIECE_BYTES));
  }

  /** What lies behind is of no use to us: the table. */
  endAt(end: number): void {
    if (end > this.#end) throw badImage(`Frames end at ${end}, their pack at ${this.#end}`);
    this.#end = Math.max(end, this.#at);
  }

  /** The next bytes; a view where they lie in one piece. */
  async take(byteLength: number): Promise<Uint8Array> {
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
    const next = this.#next ?? this.#read(PIECE_BYTES);
    if (next === undefined) throw badImage("A working set ends before its last frame");
    this.#piece = await next;
    this.#used = 0;
    // A read that does not wait would only be made earlier, not meanwhile.
    this.#next = this.#packs.isSync(this.#pack) ? undefined : this.#read(PIECE_BYTES);
  }

  /** Two take turns: one that is being handed out, and one that is being read into. */
  #buffer(byteLength: number): Buffer<ArrayBuffer> {
    if (byteLength > PIECE_BYTES) return Buffer.allocUnsafeSlow(byteLength);
    this.#turn = this.#turn === 0 ? 1 : 0;
    const buffer = this.#buffers[this.#turn] ?? Buffer.allocUnsafeSlow(PIECE_BYTES);
    this.#buffers[this.#turn] = buffer;
    return buffer;
  }

  #read(byteLength: number): Promise<Uint8Array> | undefined {
    const length = Math.min(byteLength, this.#end - this.#at);
    if (length <= 0) return undefined;
    const piece = this.#buffer(length).subarray(0, length);
    const reading = this.#packs.read(this.#pack, this.#at, piece, this.#signal).then(() => piece);
    // Whoever stops in the middle never asks for it.
    reading.catch((error: unknown) => error instanceof MinorfaultError);
    this.#at += length;
    return reading;
  }
}
