// An object behind a web server as a source: one range request a read.
//
// Opening asks for the first byte, which tells whether the server honours ranges, the length, and what the object's
// identity is (its ETag, or else its time of modification). Each read sends If-Match with a strong ETag, and checks
// the answer's own ETag, range and total length: If-Match is chosen over If-Range because a mismatch is then
// answered with 412 instead of with all of the new object.

import { setMaxListeners } from "node:events";
import { MinorfaultError } from "../base/errors.ts";
import type { HttpClient, HttpHeaders } from "./http-client.ts";
import { checkRange, type HttpIdentity, identify, text } from "./http-range.ts";
import { checkRead, closedSource, outOfRange, type PageSource } from "./page-source.ts";
import { checkWhole } from "./whole.ts";

/** LIMIT: redirects that one request follows. */
const REDIRECTS_MAX = 5;
const REDIRECTS: ReadonlySet<number> = new Set([301, 302, 303, 307, 308]);

export interface HttpTarget {
  readonly client: HttpClient;
  readonly url: URL;
  /** Sent to the URL's own origin only. */
  readonly headers: Readonly<Record<string, string>>;
  /** For messages: no query, no credentials. */
  readonly name: string;
}

export class HttpSource implements PageSource {
  readonly name: string;
  readonly byteLength: number;
  readonly identity?: string;
  readonly #target: HttpTarget;
  readonly #identity: HttpIdentity;
  readonly #closing = new AbortController();

  private constructor(target: HttpTarget, identity: HttpIdentity) {
    this.name = target.name;
    this.byteLength = identity.byteLength;
    // Without a strong tag nobody can say that two objects are byte for byte the same.
    if (isStrong(identity.etag)) this.identity = `${target.name} ${identity.etag} ${identity.byteLength}`;
    this.#target = target;
    this.#identity = identity;
    // Every read that is under way listens to it: as many as the caller makes.
    setMaxListeners(0, this.#closing.signal);
  }

  static async open(target: HttpTarget, signal?: AbortSignal): Promise<HttpSource> {
    let identity: HttpIdentity | undefined;
    const signals = signal === undefined ? [] : [signal];
    await request(target, { range: "bytes=0-0" }, signals, (status, headers) => {
      identity = identify(status, headers, target.name, 1);
      // The one byte is read, so that the connection can be used again.
      return status === 206 ? new Uint8Array(1) : undefined;
    });
    if (identity === undefined) throw new MinorfaultError("ERR_BUG", "An exchange ended without headers");
    return new HttpSource(target, identity);
  }

  /** Opens it by the request that reads these bytes, of which there is one at least. */
  static async openAt(
    target: HttpTarget,
    offset: number,
    bytes: Uint8Array,
    signal?: AbortSignal,
  ): Promise<HttpSource> {
    const { byteLength } = bytes;
    const headers = { range: `bytes=${offset}-${offset + byteLength - 1}` };
    let identity: HttpIdentity | undefined;
    await request(target, headers, signal === undefined ? [] : [signal], (status, answer) => {
      if (status === 416) throw outOfRange(target.name, offset, byteLength);
      identity = identify(status, answer, target.name, byteLength, offset);
      if (identity.byteLength < offset + byteLength) throw outOfRange(target.name, offset, byteLength);
      return bytes;
    });
    if (identity === undefined) throw new MinorfaultError("ERR_BUG", "An exchange ended without headers");
    return new HttpSource(target, identity);
  }

  /** A whole small object in one request. */
  static async whole(target: HttpTarget, bytesMax: number, signal?: AbortSignal): Promise<Uint8Array> {
    let bytes = new Uint8Array(0);
    const signals = signal === undefined ? [] : [signal];
    const wanted = Math.max(bytesMax, 1);
    await request(target, { range: `bytes=0-${wanted - 1}` }, signals, (status, headers) => {
      const { byteLength } = identify(status, headers, target.name, wanted);
      checkWhole(target.name, byteLength, bytesMax);
      bytes = new Uint8Array(byteLength);
      return status === 206 ? bytes : undefined;
    });
    return bytes;
  }

  async read(offset: number, target: Uint8Array, signal?: AbortSignal): Promise<void> {
    if (this.#closing.signal.aborted) throw closedSource(this.name);
    signal?.throwIfAborted();
    const { byteLength } = target;
    checkRead(this, offset, byteLength);
    if (byteLength === 0) return;
    const { etag } = this.#identity;
    const headers = {
      range: `bytes=${offset}-${offset + byteLength - 1}`,
      // A weak tag never matches in If-Match; it is compared when the answer is there.
      ...(isStrong(etag) ? { "if-match": etag } : {}),
    };
    const closing = this.#closing.signal;
    const signals = signal === undefined ? [closing] : [closing, signal];
    await request(this.#target, headers, signals, (status, answer) => {
      checkRange(status, answer, this.name, this.#identity, offset, byteLength);
      return target;
    });
  }

  async close(): Promise<void> {
    if (!this.#closing.signal.aborted) this.#closing.abort(closedSource(this.name));
  }
}

function isStrong(etag: string | undefined): etag is string {
  return etag?.startsWith('"') === true;
}

/** One GET, redirects followed. `judge` sees the headers of the last answer and says where its body goes. */
async function request(
  target: HttpTarget,
  headers: Readonly<Record<string, string>>,
  signals: readonly AbortSignal[],
  judge: (status: number, headers: HttpHeaders) => Uint8Array | undefined,
): Promise<void> {
  let url = target.url;
  for (let redirects = 0; ; redirects++) {
    let next: URL | undefined;
    await target.client.exchange({
      url,
      name: target.name,
      signals,
      headers: {
        "accept-encoding": "identity",
        // What the store was opened with is for its own server, not for whom that points to.
        ...(url.origin === target.url.origin ? target.headers : {}),
        ...headers,
      },
      onHeaders: (status, answer) => {
        if (!REDIRECTS.has(status)) return judge(status, answer);
        next = redirected(url, text(answer, "location"), target.name);
        return undefined;
      },
    });
    if (next === undefined) return;
    if (redirects === REDIRECTS_MAX) {
      throw new MinorfaultError(
        "ERR_SOURCE_FAILED",
        `${target.name} was redirected more than ${REDIRECTS_MAX} times`,
      );
    }
    url = next;
  }
}

function redirected(from: URL, location: string | undefined, name: string): URL {
  const to =
    location === undefined || !URL.canParse(location, from.href) ? undefined : new URL(location, from);
  const isSafe = to?.protocol === "https:" || (to?.protocol === "http:" && from.protocol === "http:");
  if (to === undefined || !isSafe) {
    throw new MinorfaultError("ERR_SOURCE_FAILED", `${name} was redirected to where we do not follow`);
  }
  return to;
}
