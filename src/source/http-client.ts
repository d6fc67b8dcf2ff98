// Requests over a bounded number of connections that are kept open: undici's pools, one an origin.
//
// A request is one exchange: headers are judged before a byte of the body is taken, the body goes straight into its
// target, and what doesn't fit is not read: the connection is cut. The time limit is over the whole exchange, so
// that a server which sends a byte a second is found out too.

import { type Dispatcher, Pool } from "undici";
import { MinorfaultError } from "../base/errors.ts";
import { networkFailure } from "./http-failure.ts";
import { addressesOf, knownLookup } from "./name-lookup.ts";

/** LIMIT: connections to one origin. Requests beyond wait for one. */
export const CONNECTIONS_DEFAULT = 16;
/** LIMIT: origins that one store may be redirected to. */
const ORIGINS_MAX = 8;
/** LIMIT: how long one exchange may take, by default. */
export const TIMEOUT_MS_DEFAULT = 30_000;
const CONNECT_TIMEOUT_MS = 10_000;
const KEEP_ALIVE_MS = 30_000;

export type HttpHeaders = Readonly<Record<string, string | string[] | undefined>>;

export interface HttpRequest {
  readonly url: URL;
  readonly headers: Readonly<Record<string, string>>;
  /** For messages. */
  readonly name: string;
  /** Whichever is aborted first ends the exchange with its reason. */
  readonly signals: readonly AbortSignal[];
  /** Where the body goes, or undefined to leave it: the exchange ends with the headers. Throws to refuse. */
  onHeaders(status: number, headers: HttpHeaders): Uint8Array | undefined;
}

export interface HttpClientOptions {
  readonly connections?: number;
  readonly timeoutMs?: number;
}

export class HttpClient {
  readonly #pools = new Map<string, Pool>();
  readonly #connections: number;
  readonly #timeoutMs: number;
  #closed = false;

  constructor(options: HttpClientOptions = {}) {
    this.#connections = options.connections ?? CONNECTIONS_DEFAULT;
    this.#timeoutMs = options.timeoutMs ?? TIMEOUT_MS_DEFAULT;
  }

  /** Resolves the origin's name. Asked before the first request to it. */
  async prepare(url: URL): Promise<void> {
    this.#checkOpen();
    if (this.#pools.has(url.origin)) return;
    const addresses = await addressesOf(url.hostname);
    this.#checkOpen();
    if (this.#pools.has(url.origin)) return;
    if (this.#pools.size >= ORIGINS_MAX) {
      throw new MinorfaultError("ERR_LIMIT", `A store was redirected to more than ${ORIGINS_MAX} origins`);
    }
    const pool = new Pool(url.origin, {
      connections: this.#connections,
      pipelining: 1,
      keepAliveTimeout: KEEP_ALIVE_MS,
      // The exchange has a limit of its own.
      headersTimeout: 0,
      bodyTimeout: 0,
      connect: { timeout: CONNECT_TIMEOUT_MS, lookup: knownLookup(addresses) },
    });
    this.#pools.set(url.origin, pool);
  }

  async exchange(request: HttpRequest): Promise<void> {
    await this.prepare(request.url);
    const pool = this.#pools.get(request.url.origin);
    if (pool === undefined) throw new MinorfaultError("ERR_CLOSED", `${request.name} has been closed`);
    for (const signal of request.signals) signal.throwIfAborted();
    await new Exchange(request, this.#timeoutMs).run(pool);
  }

  /** Ends what is under way, too. */
  async close(): Promise<void> {
    this.#closed = true;
    const pools = [...this.#pools.values()];
    this.#pools.clear();
    await Promise.all(pools.map((pool) => pool.destroy()));
  }

  #checkOpen(): void {
    if (this.#closed) throw new MinorfaultError("ERR_CLOSED", "The store has been closed");
  }
}

class Exchange {
  readonly #request: HttpRequest;
  readonly #timeoutMs: number;
  #controller: Dispatcher.DispatchController | undefined;
  #target: Uint8Array | undefined;
  #length = 0;
  #answered = false;
  #settled = false;
  #resolve: () => void = () => {};
  #reject: (reason: unknown) => void = () => {};

  constructor(request: HttpRequest, timeoutMs: number) {
    this.#request = request;
    this.#timeoutMs = timeoutMs;
  }

  async run(pool: Pool): Promise<void> {
    const { url, headers, signals } = this.#request;
    const done = new Promise<void>((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
    const onAbort = (event: Event) => this.#fail((event.target as AbortSignal).reason);
    const timer = setTimeout(() => this.#fail(this.#timeout()), this.#timeoutMs);
    for (const signal of signals) signal.addEventListener("abort", onAbort, { once: true });
    try {
      pool.dispatch(
        { path: `${url.pathname}${url.search}`, method: "GET", headers: { ...headers } },
        this.#handler(),
      );
      await done;
    } finally {
      clearTimeout(timer);
      for (const signal of signals) signal.removeEventListener("abort", onAbort);
    }
  }

  #handler(): Dispatcher.DispatchHandler {
    return {
      onRequestStart: (controller) => {
        this.#controller = controller;
        // It was given up while it waited for a connection.
        if (this.#settled) controller.abort(new Error("No longer wanted"));
      },
      onResponseStart: (_controller, status, headers) => {
        if (status >= 200) this.#guard(() => this.#onHeaders(status, headers));
      },
      onResponseData: (_controller, chunk) => this.#guard(() => this.#onData(chunk)),
      onResponseEnd: () => this.#guard(() => this.#onEnd()),
      onResponseError: (_controller, error) => {
        this.#fail(networkFailure(error, this.#request.name, this.#answered));
      },
    };
  }

  #guard(step: () => void): void {
    if (this.#settled) return;
    try {
      step();
    } catch (error) {
      this.#fail(error);
    }
  }

  #onHeaders(status: number, headers: HttpHeaders): void {
    this.#answered = true;
    this.#target = this.#request.onHeaders(status, headers);
    if (this.#target === undefined) {
      // A body that nobody wants is not worth reading to the end, unless there is none.
      this.#settled = true;
      if (headers["content-length"] !== "0") this.#controller?.abort(new Error("No longer wanted"));
      this.#resolve();
      return;
    }
    const declared = headers["content-length"];
    if (typeof declared === "string" && Number(declared) > this.#target.byteLength) {
      throw this.#tooLong(`${declared} bytes`);
    }
  }

  #onData(chunk: Uint8Array): void {
    const target = this.#target;
    if (target === undefined) return;
    if (this.#length + chunk.byteLength > target.byteLength) throw this.#tooLong("more bytes");
    target.set(chunk, this.#length);
    this.#length += chunk.byteLength;
  }

  #onEnd(): void {
    const wanted = this.#target?.byteLength ?? 0;
    if (this.#length < wanted) {
      throw new MinorfaultError(
        "ERR_SOURCE_SHORT",
        `${this.#request.name} answered with ${this.#length} of ${wanted} bytes`,
        { retryable: true },
      );
    }
    this.#settled = true;
    this.#resolve();
  }

  #fail(error: unknown): void {
    if (this.#settled) return;
    this.#settled = true;
    this.#reject(error);
    this.#controller?.abort(new Error("No longer wanted"));
  }

  #tooLong(what: string): MinorfaultError {
    return new MinorfaultError(
      "ERR_SOURCE_TOO_LONG",
      `${this.#request.name} answers with ${what} where ${this.#target?.byteLength} were asked for`,
    );
  }

  #timeout(): MinorfaultError {
    return new MinorfaultError(
      "ERR_SOURCE_TIMEOUT",
      `${this.#request.name} did not answer within ${this.#timeoutMs} ms (${this.#length} bytes came)`,
      { retryable: true },
    );
  }
}
