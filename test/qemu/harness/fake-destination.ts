// The other end of a post-copy migration without a QEMU: takes a stream apart, keeps every page, answers as a destination
// does, and asks for whatever a test wants it to ask for, right or wrong.

import { once } from "node:events";
import { createServer, type Socket } from "node:net";
import {
  encodeReturnMessage,
  type ReturnMessage,
  type StreamEvent,
  StreamReader,
} from "../../../src/guest/qemu/index.ts";

const RUNNING_PING = 3;

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
  #blocks: readonly string[] = [];
  #onPage: ((page: string) => void) | undefined;
  #onPackage: (() => void) | undefined;

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

  say(message: ReturnMessage): void {
    this.#socket?.write(encodeReturnMessage(message));
  }

  /** Asks for a page and waits until it has come. */
  async ask(block: string, page: number): Promise<void> {
    const wanted = `${block} ${page}`;
    if (this.pages.has(wanted)) return;
    const come = new Promise<void>((resolve) => {
      this.#onPage = (got) => {
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
    const reader = new StreamReader();
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
        this.#blocks = event.blocks.map(({ name }) => name);
        return;
      case "page":
        this.#book(event.block, event.page, Buffer.from(event.bytes!).readUInt32LE(0));
        return;
      case "zero":
        this.#book(event.block, event.page, 0);
        return;
      case "command":
        if (event.command.name === "ping") this.say({ kind: "pong", value: event.command.value });
        if (event.command.name !== "packaged") return;
        this.#onPackage?.();
        this.say({ kind: "pong", value: RUNNING_PING });
        return;
      case "end":
        this.say({ kind: "shut", code: 0 });
        return;
    }
  }

  #book(block: number, page: number, word: number): void {
    const name = `${this.#blocks[block]} ${page}`;
    if (this.pages.has(name)) this.repeated.push(name);
    this.pages.set(name, word);
    this.order.push(name);
    this.#onPage?.(name);
  }
}
