// The tests' own line to QEMU's monitor (QMP): commands one after the other, and events to wait for. It shares nothing
// with the product's, so that a mistake of one is seen by the other.

import type { Socket } from "node:net";

export interface QmpEvent {
  readonly event: string;
  readonly data?: Readonly<Record<string, unknown>>;
}

type Reply = {
  readonly return?: unknown;
  readonly error?: { readonly class: string; readonly desc: string };
};

export class Monitor {
  readonly #socket: Socket;
  readonly #events: QmpEvent[] = [];
  #replies: Reply[] = [];
  #isGreeted = false;
  #wake: (() => void)[] = [];
  #turn: Promise<unknown> = Promise.resolve();

  private constructor(socket: Socket) {
    this.#socket = socket;
    let text = "";
    socket.setEncoding("utf8");
    socket.on("data", (more: string) => {
      const lines = (text + more).split("\n");
      text = lines.pop()!;
      for (const line of lines) this.#take(JSON.parse(line) as QmpEvent & Reply & { QMP?: unknown });
      this.#wakeAll();
    });
    socket.on("close", () => this.#wakeAll());
    socket.on("error", () => {});
  }

  static async open(socket: Socket): Promise<Monitor> {
    const monitor = new Monitor(socket);
    await monitor.#until(() => monitor.#isGreeted, "a greeting", 30_000);
    await monitor.command("qmp_capabilities");
    return monitor;
  }

  get isClosed(): boolean {
    return this.#socket.destroyed;
  }

  async command<T>(execute: string, args: object = {}, deadlineMs = 120_000): Promise<T> {
    const run = this.#turn.then(async () => {
      this.#socket.write(`${JSON.stringify({ execute, arguments: args })}\n`);
      await this.#until(() => this.#replies.length > 0, `an answer to ${execute}`, deadlineMs);
      const reply = this.#replies.shift()!;
      if (reply.error) throw new Error(`${execute}: ${reply.error.class}: ${reply.error.desc}`);
      return reply.return as T;
    });
    this.#turn = run.catch(() => {});
    return run;
  }

  /** An event that has come or is still to come; each is given once. */
  async event(isIt: (event: QmpEvent) => boolean, what: string, deadlineMs = 120_000): Promise<QmpEvent> {
    await this.#until(() => this.#events.some(isIt), what, deadlineMs);
    const index = this.#events.findIndex(isIt);
    return this.#events.splice(index, 1)[0]!;
  }

  /** Whether an event has come that nobody has waited for. */
  hasSeen(name: string): boolean {
    return this.#events.some(({ event }) => event === name);
  }

  /** A state of the migration, of which QEMU tells when the capability "events" is on. */
  async migration(status: string, deadlineMs = 120_000): Promise<void> {
    const isIt = ({ event, data }: QmpEvent) => event === "MIGRATION" && data?.status === status;
    await this.event(isIt, `a migration that is ${status}`, deadlineMs);
  }

  /** Events that nobody has waited for are of no interest any more. */
  forgetEvents(): void {
    this.#events.length = 0;
  }

  close(): void {
    this.#socket.destroy();
  }

  #take(message: QmpEvent & Reply & { QMP?: unknown }): void {
    if (message.QMP !== undefined) this.#isGreeted = true;
    else if (message.event !== undefined) this.#events.push(message);
    else this.#replies.push(message);
  }

  #wakeAll(): void {
    for (const wake of this.#wake.splice(0)) wake();
  }

  async #until(isThere: () => boolean, what: string, deadlineMs: number): Promise<void> {
    let isLate = false;
    const timer = setTimeout(() => {
      isLate = true;
      this.#wakeAll();
    }, deadlineMs);
    try {
      while (!isThere()) {
        if (isLate || this.#socket.destroyed)
          throw new Error(`QEMU ${isLate ? "was late with" : "ended before"} ${what}`);
        await new Promise<void>((resolve) => {
          this.#wake.push(resolve);
        });
      }
    } finally {
      clearTimeout(timer);
    }
  }
}
