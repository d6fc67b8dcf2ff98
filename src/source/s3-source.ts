// An object in S3 as a source: one ranged GetObject a read, pinned by If-Match to the ETag that it had when it was
// opened, the answer checked like any web server's.

import { setMaxListeners } from "node:events";
import { MinorfaultError } from "../base/errors.ts";
import { fillFromBody } from "./body.ts";
import { type HttpHeaders, TIMEOUT_MS_DEFAULT } from "./http-client.ts";
import { checkRange, type HttpIdentity, identify } from "./http-range.ts";
import { checkRead, closedSource, outOfRange, type PageSource } from "./page-source.ts";
import type { S3 } from "./s3-client.ts";
import { s3Failure, statusOf } from "./s3-failure.ts";

export interface S3Object {
  readonly s3: S3;
  readonly bucket: string;
  readonly key: string;
  readonly name: string;
  readonly timeoutMs?: number | undefined;
}

export class S3Source implements PageSource {
  readonly name: string;
  readonly byteLength: number;
  readonly identity?: string;
  readonly #object: S3Object;
  readonly #identity: HttpIdentity;
  readonly #closing = new AbortController();

  constructor(object: S3Object, identity: HttpIdentity) {
    this.name = object.name;
    this.byteLength = identity.byteLength;
    this.#object = object;
    this.#identity = identity;
    if (identity.etag?.startsWith('"')) this.identity = `${this.name} ${identity.etag} ${this.byteLength}`;
    setMaxListeners(0, this.#closing.signal);
  }

  /** Opens it by the request that reads these bytes, of which there is one at least. */
  static async openAt(
    object: S3Object,
    offset: number,
    target: Uint8Array,
    signal: AbortSignal,
  ): Promise<S3Source> {
    const { name } = object;
    const { byteLength } = target;
    const answer = await getRange(object, offset, byteLength, undefined, signal).catch((error: unknown) => {
      throw statusOf(error) === 416 ? outOfRange(name, offset, byteLength) : error;
    });
    const identity = judged(answer, (status, headers) => identify(status, headers, name, byteLength, offset));
    if (identity.byteLength < offset + byteLength) {
      discard(answer.Body);
      throw outOfRange(name, offset, byteLength);
    }
    await fillFromBody(answer.Body as AsyncIterable<Uint8Array>, target, name, signal);
    return new S3Source(object, identity);
  }

  async read(offset: number, target: Uint8Array, signal?: AbortSignal): Promise<void> {
    if (this.#closing.signal.aborted) throw closedSource(this.name);
    signal?.throwIfAborted();
    checkRead(this, offset, target.byteLength);
    if (target.byteLength === 0) return;
    const attempt = new Attempt(
      [this.#closing.signal, ...(signal === undefined ? [] : [signal])],
      this.#object,
    );
    try {
      await this.#request(offset, target, attempt.signal);
    } catch (error) {
      if (attempt.signal.aborted) throw attempt.signal.reason;
      // Our own checks have said all of it; the client's errors are put into our words.
      if (statusOf(error) === 412 || statusOf(error) === 416) throw this.#changed();
      throw s3Failure(error, this.name);
    } finally {
      attempt.end();
    }
  }

  async #request(offset: number, target: Uint8Array, signal: AbortSignal): Promise<void> {
    const { byteLength } = target;
    const answer = await getRange(this.#object, offset, byteLength, this.#identity.etag, signal);
    judged(answer, (status, headers) =>
      checkRange(status, headers, this.name, this.#identity, offset, byteLength),
    );
    await fillFromBody(answer.Body as AsyncIterable<Uint8Array>, target, this.name, signal);
  }

  #changed(): MinorfaultError {
    return new MinorfaultError("ERR_SOURCE_CHANGED", `${this.name} has been replaced since it was opened`);
  }

  async close(): Promise<void> {
    if (!this.#closing.signal.aborted) this.#closing.abort(closedSource(this.name));
  }
}

/** Asks for a range of an object, which must have this tag if one is given. */
async function getRange(
  { s3, bucket, key }: S3Object,
  offset: number,
  byteLength: number,
  etag: string | undefined,
  abortSignal: AbortSignal,
) {
  const command = new s3.sdk.GetObjectCommand({
    Bucket: bucket,
    Key: key,
    Range: `bytes=${offset}-${offset + byteLength - 1}`,
    ...(etag === undefined ? {} : { IfMatch: etag }),
  });
  return s3.reader.send(command, { abortSignal });
}

/** What is said of an answer by its headers; one that is refused is not read. */
function judged<T>(
  answer: Awaited<ReturnType<typeof getRange>>,
  judge: (status: number, headers: HttpHeaders) => T,
): T {
  const headers = {
    etag: answer.ETag,
    "content-range": answer.ContentRange,
    "content-encoding": answer.ContentEncoding,
  };
  try {
    return judge(answer.$metadata.httpStatusCode ?? 0, headers);
  } catch (error) {
    discard(answer.Body);
    throw error;
  }
}

/** One signal of several, with a time limit over the whole request; the client's own is over silence only. */
export class Attempt {
  readonly #controller = new AbortController();
  readonly #signals: readonly AbortSignal[];
  readonly #timer: NodeJS.Timeout;
  readonly #onAbort = (event: Event): void => {
    this.#controller.abort((event.target as AbortSignal).reason);
  };

  constructor(signals: readonly AbortSignal[], { name, timeoutMs = TIMEOUT_MS_DEFAULT }: S3Object) {
    this.#signals = signals;
    for (const signal of signals) {
      if (signal.aborted) this.#controller.abort(signal.reason);
      else signal.addEventListener("abort", this.#onAbort, { once: true });
    }
    this.#timer = setTimeout(() => {
      const message = `${name} did not answer within ${timeoutMs} ms`;
      this.#controller.abort(new MinorfaultError("ERR_SOURCE_TIMEOUT", message, { retryable: true }));
    }, timeoutMs);
  }

  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  end(): void {
    clearTimeout(this.#timer);
    for (const signal of this.#signals) signal.removeEventListener("abort", this.#onAbort);
  }
}

export function discard(body: unknown): void {
  (body as { destroy?: () => void } | undefined)?.destroy?.();
}
