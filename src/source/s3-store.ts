// A bucket, or what lies below a prefix of it, as an object store.

import { MinorfaultError } from "../base/errors.ts";
import { fillFromBody } from "./body.ts";
import {
  checkKey,
  checkPrefix,
  type ListedObject,
  type ObjectStore,
  type PutOptions,
} from "./object-store.ts";
import type { PageSource } from "./page-source.ts";
import { plain } from "./plain-url.ts";
import { loadS3, type S3, type S3Options } from "./s3-client.ts";
import { s3Failure } from "./s3-failure.ts";
import { Attempt, discard, type S3Object, S3Source } from "./s3-source.ts";
import { type IfAbsentAtomicity, PART_BYTES_DEFAULT, PART_BYTES_MIN, S3Upload } from "./s3-upload.ts";
import { checkWhole } from "./whole.ts";

const URL_FORM = /^s3:\/\/([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?:\/(.*?))?\/?$/;

export class S3Store implements ObjectStore {
  readonly url: string;
  readonly #s3: S3;
  readonly #bucket: string;
  /** "" or ends in "/". */
  readonly #prefix: string;
  readonly #partBytes: number;
  readonly #timeoutMs: number | undefined;
  #closed = false;
  /** What `ifAbsent` was worth the last time: see s3-upload.ts. Undefined before the first. */
  ifAbsentAtomicity: IfAbsentAtomicity | undefined;

  private constructor(s3: S3, bucket: string, prefix: string, options: S3Options) {
    this.url = `s3://${bucket}${prefix === "" ? "" : `/${prefix.slice(0, -1)}`}`;
    this.#s3 = s3;
    this.#bucket = bucket;
    this.#prefix = prefix;
    this.#partBytes = options.partBytes ?? PART_BYTES_DEFAULT;
    this.#timeoutMs = options.timeoutMs;
  }

  static async open(url: string, options: S3Options = {}): Promise<S3Store> {
    const match = URL_FORM.exec(url);
    if (match === null || /[?#@]/.test(url)) {
      throw new MinorfaultError("ERR_STORE_URL", `${plain(url)} is not of the form s3://bucket/prefix`);
    }
    const [, bucket = "", prefix = ""] = match;
    if (prefix !== "") checkKey(prefix);
    const { partBytes = PART_BYTES_DEFAULT } = options;
    if (!Number.isSafeInteger(partBytes) || partBytes < PART_BYTES_MIN) {
      throw new MinorfaultError(
        "ERR_BAD_ARGUMENT",
        `A part has at least ${PART_BYTES_MIN} bytes, not ${partBytes}`,
      );
    }
    return new S3Store(await loadS3(options), bucket, prefix === "" ? "" : `${prefix}/`, options);
  }

  async open(key: string, signal?: AbortSignal): Promise<PageSource> {
    const object = this.#object(key, signal);
    const head = new this.#s3.sdk.HeadObjectCommand({ Bucket: this.#bucket, Key: object.key });
    const answer = await this.#attempt(object, signal, (abortSignal) =>
      this.#s3.client.send(head, { abortSignal }),
    );
    return new S3Source(object, {
      byteLength: answer.ContentLength ?? 0,
      etag: answer.ETag,
      lastModified: undefined,
    });
  }

  async openAt(key: string, offset: number, target: Uint8Array, signal?: AbortSignal): Promise<PageSource> {
    const object = this.#object(key, signal);
    return this.#attempt(object, signal, (abortSignal) =>
      S3Source.openAt(object, offset, target, abortSignal),
    );
  }

  async get(key: string, bytesMax: number, signal?: AbortSignal): Promise<Uint8Array> {
    const object = this.#object(key, signal);
    const command = new this.#s3.sdk.GetObjectCommand({ Bucket: this.#bucket, Key: object.key });
    return this.#attempt(object, signal, async (abortSignal) => {
      const { Body, ContentLength = 0 } = await this.#s3.client.send(command, { abortSignal });
      try {
        checkWhole(object.name, ContentLength, bytesMax);
      } catch (error) {
        discard(Body);
        throw error;
      }
      const bytes = new Uint8Array(ContentLength);
      await fillFromBody(Body as AsyncIterable<Uint8Array>, bytes, object.name, abortSignal);
      return bytes;
    });
  }

  async put(
    key: string,
    bytes: Uint8Array | AsyncIterable<Uint8Array>,
    options: PutOptions = {},
  ): Promise<void> {
    const upload = new S3Upload(this.#object(key, options.signal), this.#partBytes, options);
    try {
      await upload.run(bytes);
    } finally {
      if (options.ifAbsent) this.ifAbsentAtomicity = upload.atomicity;
    }
  }

  async *list(prefix: string, signal?: AbortSignal): AsyncIterable<ListedObject> {
    checkPrefix(prefix);
    this.#check(signal);
    const place = { ...this.#place(prefix), name: `${this.url}/${prefix}` };
    let ContinuationToken: string | undefined;
    do {
      const command = new this.#s3.sdk.ListObjectsV2Command({
        Bucket: this.#bucket,
        Prefix: place.key,
        ContinuationToken,
      });
      const page = await this.#attempt(place, signal, (abortSignal) =>
        this.#s3.client.send(command, { abortSignal }),
      );
      for (const { Key = "", Size = 0 } of page.Contents ?? []) {
        const key = Key.slice(this.#prefix.length);
        // Others may keep what is no key of ours, such as markers of folders.
        if (isKey(key)) yield { key, byteLength: Size };
      }
      ContinuationToken = page.IsTruncated ? page.NextContinuationToken : undefined;
    } while (ContinuationToken !== undefined);
  }

  async delete(key: string, signal?: AbortSignal): Promise<void> {
    const object = this.#object(key, signal);
    const command = new this.#s3.sdk.DeleteObjectCommand({ Bucket: this.#bucket, Key: object.key });
    try {
      await this.#attempt(object, signal, (abortSignal) => this.#s3.client.send(command, { abortSignal }));
    } catch (error) {
      if (!(error instanceof MinorfaultError) || error.code !== "ERR_SOURCE_MISSING") throw error;
    }
  }

  async removeUnfinished(ageMs: number, signal?: AbortSignal): Promise<number> {
    this.#check(signal);
    const { sdk, client } = this.#s3;
    const place = { ...this.#place(""), name: `${this.url}/` };
    const command = new sdk.ListMultipartUploadsCommand({ Bucket: this.#bucket, Prefix: this.#prefix });
    // One page (1000 uploads) is enough: what is beyond is found by the next time.
    const { Uploads = [] } = await this.#attempt(place, signal, (abortSignal) =>
      client.send(command, { abortSignal }),
    );
    const old = Uploads.filter(({ Initiated }) => Date.now() - (Initiated?.getTime() ?? 0) >= ageMs);
    for (const { Key, UploadId } of old) {
      const abort = new sdk.AbortMultipartUploadCommand({ Bucket: this.#bucket, Key, UploadId });
      await this.#attempt(place, signal, (abortSignal) => client.send(abort, { abortSignal }));
    }
    return old.length;
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    this.#s3.destroy();
  }

  async #attempt<T>(
    object: S3Object,
    signal: AbortSignal | undefined,
    request: (signal: AbortSignal) => Promise<T>,
  ): Promise<T> {
    const attempt = new Attempt(signal === undefined ? [] : [signal], object);
    try {
      return await request(attempt.signal);
    } catch (error) {
      if (attempt.signal.aborted) throw attempt.signal.reason;
      throw s3Failure(error, object.name);
    } finally {
      attempt.end();
    }
  }

  #object(key: string, signal: AbortSignal | undefined): S3Object {
    checkKey(key);
    this.#check(signal);
    return this.#place(key);
  }

  #place(key: string): S3Object {
    return {
      s3: this.#s3,
      bucket: this.#bucket,
      key: this.#prefix + key,
      name: `${this.url}/${key}`,
      timeoutMs: this.#timeoutMs,
    };
  }

  #check(signal: AbortSignal | undefined): void {
    signal?.throwIfAborted();
    if (this.#closed) throw new MinorfaultError("ERR_CLOSED", `The store ${this.url} has been closed`);
  }
}

function isKey(key: string): boolean {
  try {
    checkKey(key);
    return true;
  } catch {
    return false;
  }
}
