// Reads a migration stream from bytes that arrive in pieces: a saved file, a socket, or what we send ourselves.
//
//   const reader = new StreamReader();
//   for await (const piece of socket) {
//     reader.push(piece);
//     for (let event = reader.read(); event !== undefined; event = reader.read()) …
//   }
//   reader.end();          and read() until it says undefined: the rest, or an error if the stream was cut
//
// Bodies of devices say nothing of their length, so all devices are one event, which comes when the stream has ended:
// its bounds are found from the description behind it (device-bounds.ts).

import { ByteWriter } from "./byte-writer.ts";
import { readCommand } from "./command-reader.ts";
import { readConfiguration } from "./configuration-reader.ts";
import { splitTail } from "./device-bounds.ts";
import { readLibvirtHeader } from "./libvirt-header.ts";
import { type ExpectedPages, type PageSink, RamReader } from "./ram-reader.ts";
import { ANYTHING, type Parsing, Scanner } from "./scanner.ts";
import type { SectionHead, StreamEvent } from "./stream-event.ts";
import {
  DEVICES_BYTES_MAX,
  LIVE_SECTIONS,
  MAGIC,
  RAM_SECTION,
  type RamBlock,
  SECTION,
  VERSION,
} from "./stream-format.ts";

export interface StreamReaderOptions {
  /** Whether events of pages carry their bytes (default), or only say where they are. */
  readonly payload?: boolean;
  /** Takes pages with their bytes as soon as they are understood; of some there are events all the same. */
  readonly sink?: PageSink;
  /** Of the first byte; default 0. */
  readonly offset?: number;
  /**
   * The stream is known to be whole (QEMU has said so), so it may lack the description that would show it (machines
   * before 2.3, suppress-vmdesc). Default: such a stream is refused, since one that was cut looks the same.
   */
  readonly isWhole?: boolean;
  /** A stream that goes on where another one broke: recovery of post-copy has no header and begins nothing again. */
  readonly resumed?: { readonly blocks: readonly RamBlock[]; readonly sectionId: number };
}

export class StreamReader {
  readonly #scanner: Scanner;
  readonly #ram: RamReader;
  readonly #sections = new Map<number, SectionHead>();
  readonly #parsing: Parsing;
  readonly #isWhole: boolean;
  #isPostcopy: boolean;
  #hasPart = false;
  #isRamWhole = false;
  #needed = 0;
  #isNews = false;
  #failure: unknown;

  constructor(options: StreamReaderOptions = {}) {
    this.#scanner = new Scanner(options.offset ?? 0);
    this.#ram = new RamReader(this.#scanner, options.payload ?? true, options.sink);
    this.#isWhole = options.isWhole ?? false;
    const { resumed } = options;
    this.#isPostcopy = resumed !== undefined;
    this.#parsing = resumed === undefined ? this.#stream() : this.#parts();
    if (resumed === undefined) return;
    const { sectionId: id, blocks } = resumed;
    this.#sections.set(id, { form: "start", id, ...RAM_SECTION });
    this.#ram.know(blocks);
  }

  /** Of the next byte to be read. */
  get offset(): number {
    return this.#scanner.feed.offset;
  }

  /** What is being read, for messages. */
  get place(): string {
    return this.#scanner.place;
  }

  /** Bytes that come next and that need not be pushed: see `skip`. */
  get skippable(): number {
    const { skippable, feed } = this.#scanner;
    return feed.available === 0 ? skippable : 0;
  }

  /** Pages that come next if it goes on as it did: who knows where they belong may read them there (`passed`). */
  get expected(): ExpectedPages | undefined {
    return this.#failure === undefined ? this.#ram.expected : undefined;
  }

  /** Passes over the records of so many of the pages that are expected; none may have begun to come. */
  passed(pages: number): void {
    this.#ram.passed(pages);
  }

  /** Adds bytes; they must not change until they have been read, or `keep` been called. */
  push(piece: Uint8Array): void {
    this.#scanner.feed.push(piece);
    this.#isNews = true;
  }

  /** Copies what was added and is left, once `read` has nothing more: a buffer may be used again. */
  keep(): void {
    this.#scanner.feed.keep();
  }

  /** Passes over up to `skippable` bytes. */
  skip(byteLength: number): void {
    this.#scanner.feed.skipped(byteLength);
    this.#isNews = true;
  }

  /** Says that nothing more will come. */
  end(): void {
    this.#scanner.isEnded = true;
    this.#isNews = true;
  }

  /** The next event; undefined: more bytes are needed, or everything has been read. */
  read(): StreamEvent | undefined {
    if (this.#failure !== undefined) throw this.#failure;
    try {
      return this.#next();
    } catch (error) {
      this.#failure = error;
      throw error;
    }
  }

  #next(): StreamEvent | undefined {
    const { feed } = this.#scanner;
    for (;;) {
      const isReady = this.#needed === ANYTHING ? this.#isNews : feed.available >= this.#needed;
      if (!isReady) {
        if (this.#scanner.isEnded) throw this.#scanner.cut();
        return undefined;
      }
      this.#isNews = false;
      const { value, done } = this.#parsing.next();
      if (done) return undefined;
      if (typeof value !== "number") {
        this.#needed = 0;
        return value;
      }
      this.#needed = value;
    }
  }

  *#stream(): Parsing {
    const scanner = this.#scanner;
    const { feed } = scanner;
    yield* scanner.need(8);
    if (feed.peekU32(0) !== MAGIC) yield* readLibvirtHeader(scanner);
    yield* scanner.need(8);
    const { offset } = feed;
    if (feed.u32() !== MAGIC) throw scanner.refusal("ERR_BAD_MESSAGE", "it does not begin with QEVM", offset);
    const version = feed.u32();
    if (version !== VERSION) {
      throw scanner.refusal(
        "ERR_STREAM_FEATURE",
        `it has version ${version} of the format, not 3`,
        offset + 4,
      );
    }
    yield { kind: "header", offset };
    yield* scanner.need(1);
    if (feed.peek() === SECTION.configuration) yield* readConfiguration(scanner);
    yield* this.#parts();
  }

  /** Everything on the top level, up to the end. */
  *#parts(): Parsing {
    const scanner = this.#scanner;
    for (;;) {
      scanner.place = "the list of sections";
      yield* scanner.need(1);
      switch (scanner.feed.peek()) {
        case SECTION.start:
          yield* this.#body(yield* this.#start());
          break;
        case SECTION.part:
        case SECTION.finish:
          yield* this.#body(yield* this.#part());
          break;
        case SECTION.command:
          yield* this.#command();
          break;
        case SECTION.full:
          yield* this.#checkRam();
          return yield* this.#tail();
        case SECTION.end:
          yield* this.#checkRam();
          if (!this.#isPostcopy) return yield* this.#tail();
          // Post-copy has sent its devices in a package, and describes nothing.
          yield { kind: "end", offset: scanner.feed.offset };
          scanner.feed.drop(1);
          return;
        default:
          throw this.#unknown();
      }
    }
  }

  *#start(): Parsing<{ head: SectionHead; offset: number }> {
    const scanner = this.#scanner;
    const { feed } = scanner;
    yield* scanner.need(5);
    const { offset } = feed;
    feed.drop(1);
    const id = feed.u32();
    const name = yield* scanner.name();
    scanner.place = `section ${name}`;
    yield* scanner.need(8);
    const instance = feed.u32();
    const version = feed.u32();
    const known = LIVE_SECTIONS.find((section) => section.name === name);
    if (known === undefined || known.instance !== instance || known.version !== version) {
      const reason = `section ${JSON.stringify(name)} (instance ${instance}, version ${version}) is not known`;
      throw scanner.refusal("ERR_STREAM_FEATURE", reason, offset);
    }
    if (this.#sections.size > 0) throw scanner.refusal("ERR_BAD_MESSAGE", "it begins a second time", offset);
    const head: SectionHead = { form: "start", id, name, instance, version };
    this.#sections.set(id, head);
    return { head, offset };
  }

  *#part(): Parsing<{ head: SectionHead; offset: number }> {
    const scanner = this.#scanner;
    const { feed } = scanner;
    yield* scanner.need(5);
    const { offset } = feed;
    const form = feed.u8() === SECTION.part ? "part" : "finish";
    const id = feed.u32();
    const begun = this.#sections.get(id);
    if (begun === undefined || this.#isRamWhole) {
      throw scanner.refusal("ERR_BAD_MESSAGE", `a part belongs to section ${id}, which is not open`, offset);
    }
    return { head: { ...begun, form }, offset };
  }

  *#body({ head, offset }: { head: SectionHead; offset: number }): Parsing {
    const scanner = this.#scanner;
    const { feed } = scanner;
    scanner.place = `section ${head.name} (${head.form})`;
    yield { kind: "section", offset, section: head };
    yield* this.#ram.body(head);
    yield* scanner.need(5);
    const end = feed.offset;
    const mark = feed.u8();
    const id = feed.u32();
    if (mark !== SECTION.footer || id !== head.id) {
      throw scanner.refusal("ERR_BAD_MESSAGE", `it does not end with the footer of section ${head.id}`, end);
    }
    if (head.form !== "start") this.#hasPart = true;
    if (head.form === "finish") this.#isRamWhole = true;
    yield { kind: "section end", offset: end, section: head };
  }

  /**
   * Devices come when all RAM has: after its last part, or after any part in a snapshot taken in the background, which
   * has no last one. A device before that cannot be passed over, since it does not say how long it is.
   */
  *#checkRam(): Parsing {
    if (this.#isRamWhole || (this.#hasPart && this.#scanner.feed.peek() === SECTION.full)) return;
    const scanner = this.#scanner;
    const { feed } = scanner;
    const { offset } = feed;
    if (feed.u8() === SECTION.end) {
      throw scanner.refusal("ERR_BAD_MESSAGE", "it ends before all RAM has been sent", offset);
    }
    yield* scanner.need(4);
    feed.drop(4);
    const name = yield* scanner.name();
    const reason = `section ${JSON.stringify(name)} comes before RAM has been sent, which is not known`;
    throw scanner.refusal("ERR_STREAM_FEATURE", reason, offset);
  }

  *#command(): Parsing {
    const command = yield* readCommand(this.#scanner);
    this.#isPostcopy ||= command.name === "packaged";
  }

  /** Gathers the rest of the stream, which can be taken apart only from its end. */
  *#tail(): Parsing {
    const scanner = this.#scanner;
    const { feed } = scanner;
    scanner.place = "the device state";
    const { offset } = feed;
    const rest = new ByteWriter(2 ** 16);
    for (;;) {
      while (feed.available > 0) rest.bytes(feed.take(Math.min(feed.available, 2 ** 16)));
      if (rest.byteLength > DEVICES_BYTES_MAX) {
        throw scanner.refusal("ERR_LIMIT", `devices have more than ${DEVICES_BYTES_MAX} bytes`, offset);
      }
      if (scanner.isEnded) break;
      yield ANYTHING;
    }
    yield* splitTail(scanner, rest.take(), offset, this.#isWhole);
  }

  #unknown() {
    const type = this.#scanner.feed.peek();
    return this.#scanner.refusal(
      "ERR_STREAM_FEATURE",
      `a section has the unknown type 0x${type.toString(16)}`,
    );
  }
}
