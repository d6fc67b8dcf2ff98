// The other side of a post-copy migration, as QEMU is one: it reads the stream that the source sends, keeps what it
// gets, and answers on the return path. What QEMU would end at is an error here.

import {
  encodeReturnMessage,
  type ReturnMessage,
  type SourceBlock,
  type StreamEvent,
  StreamReader,
  StreamWriter,
} from "../../src/guest/qemu/index.ts";
import { PAGE, SECTION_ID } from "./streams.ts";

export class Destination {
  readonly #blocks: readonly SourceBlock[];
  readonly #devices: Uint8Array;
  /** By block. */
  readonly memory: Uint8Array[];
  /** By block and page: whether it has been placed. */
  readonly has: boolean[][];
  /** What it answers, in order. */
  readonly answers: ReturnMessage[] = [];
  #reader = new StreamReader();
  #isListening = false;
  #isRunning = false;
  #isEnded = false;
  /** The page of a huge host page that must come next. */
  #next: { block: number; page: number } | undefined;
  #arriving: Uint8Array | undefined;

  constructor(blocks: readonly SourceBlock[], devices: Uint8Array) {
    this.#blocks = blocks;
    this.#devices = devices;
    this.memory = blocks.map(({ byteLength }) => new Uint8Array(byteLength));
    this.has = blocks.map(({ byteLength }) => Array(byteLength / PAGE).fill(false));
  }

  get isRunning(): boolean {
    return this.#isRunning;
  }

  get isEnded(): boolean {
    return this.#isEnded;
  }

  /** Host pages that a guest could wait for. */
  missing(): { block: number; page: number }[] {
    return this.#blocks.flatMap(({ pageSize }, block) =>
      this.has[block]!.flatMap((has, page) =>
        has || page % (pageSize / PAGE) !== 0 ? [] : [{ block, page }],
      ),
    );
  }

  /** A request for a host page; names its block only when it must. */
  request(block: number, page: number, isSameBlock: boolean): ReturnMessage {
    const { name, pageSize } = this.#blocks[block]!;
    return {
      kind: "request",
      block: isSameBlock ? undefined : name,
      start: page * PAGE,
      byteLength: pageSize,
    };
  }

  receive(bytes: Uint8Array): void {
    this.#reader.push(bytes);
    for (let event = this.#reader.read(); event !== undefined; event = this.#reader.read()) this.#take(event);
  }

  /** The connection has broken; another one goes on. */
  reconnect(): void {
    if (!this.#isRunning) throw new Error("QEMU ends when its source is lost before it runs");
    const blocks = this.#blocks.map(({ name, byteLength }) => ({ name, byteLength }));
    this.#reader = new StreamReader({ resumed: { blocks, sectionId: SECTION_ID } });
    this.#next = undefined;
    this.answers.length = 0;
  }

  #take(event: StreamEvent): void {
    switch (event.kind) {
      case "blocks":
        for (const [index, { name, byteLength, pageSize = PAGE }] of event.blocks.entries()) {
          const mine = this.#blocks[index];
          if (mine?.name === name && mine.byteLength === byteLength && mine.pageSize === pageSize) continue;
          throw new Error(`Block ${name} is not as mine`);
        }
        return;
      case "page":
        this.#place(event.block, event.page, event.bytes!);
        return;
      case "zero":
        this.#place(event.block, event.page, new Uint8Array(PAGE));
        return;
      case "command":
        this.#command(event.command);
        return;
      case "end":
        if (this.has.some((pages) => pages.includes(false)))
          throw new Error("It ends before all pages have come");
        this.#isEnded = true;
        this.answers.push({ kind: "shut", code: 0 });
    }
  }

  #place(block: number, page: number, bytes: Uint8Array): void {
    const { name, pageSize } = this.#blocks[block]!;
    const hostPages = pageSize / PAGE;
    const place = page % hostPages;
    if (this.#next !== undefined && (this.#next.block !== block || this.#next.page !== page)) {
      throw new Error(`Non-same host page detected: ${name} ${page}`);
    }
    if (this.#next === undefined && place !== 0)
      throw new Error(`A host page of ${name} begins in its middle`);
    if (place === 0) this.#arriving = new Uint8Array(pageSize);
    this.#arriving!.set(bytes, place * PAGE);
    this.#next = place === hostPages - 1 ? undefined : { block, page: page + 1 };
    if (this.#next !== undefined) return;
    const first = page - place;
    for (let index = first; index <= page; index++) {
      if (this.has[block]![index]) throw new Error(`Page ${index} of ${name} was sent twice`);
      this.has[block]![index] = true;
    }
    this.memory[block]!.set(this.#arriving!, first * PAGE);
  }

  #command(command: (StreamEvent & { readonly kind: "command" })["command"]): void {
    switch (command.name) {
      case "ping":
        this.answers.push({ kind: "pong", value: command.value });
        return;
      case "postcopy-advise": {
        const all = this.#blocks.reduce((sum, { pageSize }) => sum | pageSize, 0);
        if (command.pageSizes !== all || command.targetPageSize !== PAGE) throw new Error("Wrong page sizes");
        return;
      }
      case "postcopy-discard": {
        const block = this.#blocks.findIndex(({ name }) => name === command.block);
        for (const { start, byteLength } of command.ranges) {
          if (byteLength === 0 || (start | byteLength) % this.#blocks[block]!.pageSize !== 0) {
            throw new Error("A range to discard is no host pages");
          }
          for (let page = start / PAGE; page < (start + byteLength) / PAGE; page++) {
            if (this.has[block]![page])
              throw new Error(`Page ${page} of ${command.block} was sent and discarded`);
            this.#discarded.add(`${block} ${page}`);
          }
        }
        return;
      }
      case "packaged":
        this.#run(command.bytes);
        return;
      case "recv-bitmap":
        this.answers.push(this.#received(command.block));
        return;
      case "postcopy-resume":
        this.answers.push({ kind: "resumed", value: 1 });
        return;
      case "open-return-path":
        return;
      default:
        throw new Error(`Command ${command.name} is out of order`);
    }
  }

  readonly #discarded = new Set<string>();

  /** LISTEN, all devices, PING 3, RUN; and everything that was not sent before has been discarded. */
  #run(bytes: Uint8Array): void {
    const expected = new StreamWriter()
      .command({ name: "postcopy-listen" })
      .verbatim(this.#devices)
      .command({ name: "ping", value: 3 })
      .command({ name: "postcopy-run" })
      .take();
    if (Buffer.compare(bytes, expected) !== 0) throw new Error("The package is not what it should be");
    if (this.#discarded.size === 0) throw new Error("QEMU 7.2 hangs when nothing is discarded");
    for (const [block, pages] of this.has.entries()) {
      const kept = pages.findIndex((has, page) => !has && !this.#discarded.has(`${block} ${page}`));
      if (kept !== -1) throw new Error(`Page ${kept} of block ${block} was neither sent nor discarded`);
    }
    this.#isListening = true;
    this.#isRunning = this.#isListening;
    this.answers.push({ kind: "pong", value: 3 });
  }

  #received(name: string): ReturnMessage {
    const block = this.#blocks.findIndex((each) => each.name === name);
    const pages = this.has[block]!;
    const bitmap = new Uint8Array(Math.ceil(pages.length / 64) * 8);
    for (const [page, has] of pages.entries()) if (has) bitmap[page >> 3]! |= 1 << (page & 7);
    return { kind: "received", block: name, bitmap };
  }

  /** Its answers as bytes, which it forgets. */
  takeAnswers(): Uint8Array {
    return Buffer.concat(this.answers.splice(0).map(encodeReturnMessage));
  }
}
