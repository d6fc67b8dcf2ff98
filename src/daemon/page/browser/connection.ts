// Frames from the server, again and again. The token is a header and not a cookie, so the stream is read by fetch and not
// by EventSource, which can send none.

import type { Frame } from "../../control/frame.ts";

const RETRY_MS = 1000;

export interface Watching {
  /** A frame has come. */
  onFrame(frame: Frame): void;
  /** There is no connection; it is tried again. `isRefused`: without another token that is no use. */
  onLost(why: string, isRefused: boolean): void;
}

export class Connection {
  readonly #token: string;
  readonly #watching: Watching;
  #controller = new AbortController();
  #guest: string | undefined;
  #everyMs = 500;

  constructor(token: string, watching: Watching) {
    this.#token = token;
    this.#watching = watching;
  }

  /** Begins anew: with this guest's history in every frame, so often. */
  watch(guest: string | undefined, everyMs: number): void {
    this.#guest = guest;
    this.#everyMs = everyMs;
    this.stop();
    this.#controller = new AbortController();
    void this.#run(this.#controller.signal);
  }

  stop(): void {
    this.#controller.abort();
  }

  async #run(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      try {
        await this.#read(signal);
        if (!signal.aborted) this.#watching.onLost("The server has closed the connection", false);
      } catch (error) {
        if (signal.aborted) return;
        const isRefused = error instanceof Refused;
        this.#watching.onLost(isRefused ? error.message : "The server does not answer", isRefused);
        if (isRefused) return;
      }
      await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
    }
  }

  async #read(signal: AbortSignal): Promise<void> {
    const query = new URLSearchParams({ everyMs: String(this.#everyMs) });
    if (this.#guest !== undefined) query.set("guest", this.#guest);
    const response = await fetch(`/v1/stream?${query}`, {
      headers: { authorization: `Bearer ${this.#token}`, accept: "text/event-stream" },
      cache: "no-store",
      credentials: "omit",
      signal,
    });
    if (response.status === 401 || response.status === 403) {
      throw new Refused("The server wants its token: open the page by the URL that has it");
    }
    if (!response.ok || response.body === null) throw new Error(`HTTP ${response.status}`);
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let text = "";
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      text += value;
      const events = text.split("\n\n");
      text = events.pop() ?? "";
      // Only the newest is drawn: what was late is over.
      const last = events.at(-1);
      if (last !== undefined) this.#watching.onFrame(frameOf(last));
    }
  }
}

class Refused extends Error {}

function frameOf(event: string): Frame {
  const data = event
    .split("\n")
    .filter((line) => line.startsWith("data: "))
    .map((line) => line.slice("data: ".length));
  return JSON.parse(data.join("\n")) as Frame;
}
