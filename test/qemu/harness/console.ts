// The guest's serial console: sends a line to its shell and waits for what that answers (guest/init.ts).

import type { Socket } from "node:net";
import { READY } from "../guest/init.ts";

const ANSWER = /^([\s\S]*?)=(\d+)=\n/;

export interface ShellAnswer {
  readonly text: string;
  readonly code: number;
}

export class GuestConsole {
  readonly #socket: Socket;
  #text = "";
  #wake: (() => void) | undefined;

  constructor(socket: Socket) {
    this.#socket = socket;
    socket.setEncoding("latin1");
    socket.on("data", (text: string) => {
      this.#text += text.replaceAll("\r", "");
      this.#wake?.();
    });
    socket.on("close", () => this.#wake?.());
    socket.on("error", () => {});
  }

  /** Everything that has been printed and not been asked for. */
  get pending(): string {
    return this.#text;
  }

  /** The guest has started, and has filled its memory. */
  async ready(deadlineMs = 120_000): Promise<void> {
    await this.#until(() => this.#text.includes(`${READY}\n`), "the guest to be ready", deadlineMs);
    this.#text = this.#text.slice(this.#text.indexOf(READY) + READY.length + 1);
  }

  /** Runs a line in the guest's shell. */
  async run(line: string, deadlineMs = 120_000): Promise<ShellAnswer> {
    this.#socket.write(`${line}\n`);
    await this.#until(() => ANSWER.test(this.#text), `an answer to "${line}"`, deadlineMs);
    const [all, text, code] = ANSWER.exec(this.#text)!;
    this.#text = this.#text.slice(all.length);
    return { text: text!.trim(), code: Number(code) };
  }

  close(): void {
    this.#socket.destroy();
  }

  async #until(isThere: () => boolean, what: string, deadlineMs: number): Promise<void> {
    let isLate = false;
    const timer = setTimeout(() => {
      isLate = true;
      this.#wake?.();
    }, deadlineMs);
    try {
      while (!isThere()) {
        if (isLate || this.#socket.destroyed) {
          const why = isLate ? `within ${deadlineMs} ms` : "before the machine ended";
          throw new Error(`Waited in vain for ${what} ${why}; the console has: ${this.#text.slice(-2000)}`);
        }
        await new Promise<void>((resolve) => {
          this.#wake = resolve;
        });
      }
    } finally {
      clearTimeout(timer);
    }
  }
}
