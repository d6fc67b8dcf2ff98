// The other end of a post-copy migration without a QEMU: takes a stream apart, keeps every page, answers as a destination
// does, and asks for whatever a test wants it to ask for, right or wrong. Its connections may be cut; it is recovered then.

import { once } from "node:events";
import { createServer, type Socket } from "node:net";
import {
  bitmapBytesOf,
  encodeReturnMessage,
  type RamBlock,
  type ReturnMessage,
  type StreamEvent,
  StreamReader,
} from "../../../src/guest/qemu/index.ts";

const RUNNING_PING = 3;
/** Of the machine that the tests make. */
const SECTION_ID = 2;

export class FakeDestination {
  readonly uri: string;
  /** What came of each page, by block and page: its first word, 0 for zeros. */
  readonly pages = new Map<string, number>();
  /** Pages that came twice: QEMU would have ended. */
  readonly repeated: string[] = [];
  /** In the order in which they came. */
  readonly order: string[] = [];
  readonly #server = createServer();
  #socket: Socket | undefined;
  #blocks: readonly RamBlock[] = [];
  /** Forgets every page as it comes, as if the connection had broken before. */
  isForgetful = false;
  /** How often it has been connected to. */
  connections = 0;
  /** Commands, in the order in which they came. */
  readonly commands: string[] = [];
  /** Its devices need this page, which they don't ask for: it runs when that has come. */
  needs: string | undefined;
  #held: ReturnMessage[] | undefined;
  onPage: ((page: string) => void) | undefined;
  #onPackage: (() => void) | undefined;
  #onCommand: ((name: string) => void) | undefined;

  private constructor(path: string) {
    this.uri = `unix:${path}`;
    this.#server.on("connection", (socket) => this.#serve(socket));
    this.#server.listen(path);
  }

  static async listen(path: string): Promise<FakeDestination> {
    const destination = new FakeDestination(path);
    await once(destination.#server, "listening");
    return destination;
  }

  /** The device state has come: from here on it may ask for pages. */
  loads(): Promise<void> {
    return new Promise((resolve) => {
      this.#onPackage = resolve;
    });
  }

  /** Resolves when so many pages have come. */
  has(count: number): Promise<void> {
    return new Promise((resolve) => {
      const look = (): void => {
        if (this.pages.size < count) return;
        this.onPage = undefined;
        resolve();
      };
      this.onPage = look;
      look();
    });
  }

  /** Resolves when this command comes. */
  hears(command: string): Promise<void> {
    return new Promise((resolve) => {
      this.#onCommand = (name) => {
        if (name === command) resolve();
      };
    });
  }

  /** Resolves when it has been recovered. */
  resumes(): Promise<void> {
    return this.hears("postcopy-resume");
  }

  /** What it is asked while it is recovered it answers when it is told to. */
  holdAnswers(): void {
    this.#held = [];
  }

  giveAnswers(): void {
    for (const message of this.#held?.splice(0) ?? []) this.say(message);
    this.#held = undefined;
  }

  cut(): void {
    this.#socket?.destroy();
  }

  say(message: ReturnMessage): void {
    this.#socket?.write(encodeReturnMessage(message));
  }

  /** Asks for a page and waits until it has come. */
  async ask(block: string, page: number): Promise<void> {
    const wanted = `${block} ${page}`;
    if (this.pages.has(wanted)) return;
    const come = new Promise<void>((resolve) => {
      this.onPage = (got) => {
        if (got === wanted) resolve();
      };
    });
    this.say({ kind: "request", block, start: page * 4096, byteLength: 4096 });
    await come;
  }

  close(): void {
    this.#socket?.destroy();
    this.#server.close();
  }

  #serve(socket: Socket): void {
    this.#socket = socket;
    this.connections++;
    const isResumed = this.connections > 1;
    const reader = new StreamReader(
      isResumed ? { resumed: { blocks: this.#blocks, sectionId: SECTION_ID } } : {},
    );
    socket.on("error", () => {});
    socket.on("data", (bytes) => {
      // What is pushed is read later, and the socket's memory is its own.
      reader.push(Uint8Array.from(bytes));
      for (let event = reader.read(); event !== undefined; event = reader.read()) this.#take(event);
    });
  }

  #take(event: StreamEvent): void {
    switch (event.kind) {
      case "blocks":
        this.#blocks = event.blocks;
        return;
      case "page":
        this.#book(event.block, event.page, Buffer.from(event.bytes!).readUInt32LE(0));
        return;
      case "zero":
        this.#book(event.block, event.page, 0);
        return;
      case "command":
        this.commands.push(event.command.name);
        this.#onCommand?.(event.command.name);
        if (event.command.name === "recv-bitmap") this.#answer(this.#received(event.command.block));
        if (event.command.name === "postcopy-resume") this.#answer({ kind: "resumed", value: 1 });
        if (event.command.name === "ping") this.say({ kind: "pong", value: event.command.value });
        if (event.command.name !== "packaged") return;
        this.#onPackage?.();
        if (this.needs === undefined) this.#run();
        return;
      case "end":
        this.say({ kind: "shut", code: 0 });
        return;
    }
  }

  #run(): void {
    this.say({ kind: "pong", value: RUNNING_PING });
  }

  #answer(message: ReturnMessage): void {
    if (this.#held === undefined) this.say(message);
    else this.#held.push(message);
  }

  #received(block: string): ReturnMessage {
    const { byteLength } = this.#blocks.find(({ name }) => name === block)!;
    const bitmap = new Uint8Array(bitmapBytesOf(byteLength));
    for (let page = 0; page < byteLength / 4096; page++) {
      if (this.pages.has(`${block} ${page}`)) bitmap[page >>> 3]! |= 1 << (page & 7);
    }
    return { kind: "received", block, bitmap };
  }

  #book(block: number, page: number, word: number): void {
    const name = `${this.#blocks[block]?.name} ${page}`;
    if (this.isForgetful) {
      this.onPage?.(name);
      return;
    }
    if (this.pages.has(name)) this.repeated.push(name);
    this.pages.set(name, word);
    this.order.push(name);
    if (name === this.needs) this.#run();
    this.onPage?.(name);
  }
}
