// Writing an object to S3. What fits into one part is one PutObject; a longer stream is a multipart upload, which
// becomes visible when it is completed and is taken back when anything fails on the way.
//
// `ifAbsent` is If-None-Match, where the server has conditional writes. Where it has not (501), we look first and
// then write: two writers at the same moment may then both believe to have been first. `atomicity` says which of the
// two it was; for objects named by their content it makes no difference.

import { MinorfaultError } from "../base/errors.ts";
import type { PutOptions } from "./object-store.ts";
import { s3Failure, statusOf } from "./s3-failure.ts";
import type { S3Object } from "./s3-source.ts";

export type IfAbsentAtomicity = "atomic" | "checked";

export const PART_BYTES_DEFAULT: number = 64 * 2 ** 20;
/** S3's own: smaller parts are refused, but for the last one. */
export const PART_BYTES_MIN: number = 5 * 2 ** 20;
/** LIMIT: S3's own. */
const PARTS_MAX = 10_000;
/** LIMIT: tries of a conditional write that met another one. */
const CONFLICTS_MAX = 5;

export class S3Upload {
  readonly #object: S3Object;
  readonly #partBytes: number;
  readonly #ifAbsent: boolean;
  readonly #signal: AbortSignal | undefined;
  atomicity: IfAbsentAtomicity = "atomic";

  constructor(object: S3Object, partBytes: number, options: PutOptions) {
    this.#object = object;
    this.#partBytes = partBytes;
    this.#ifAbsent = options.ifAbsent ?? false;
    this.#signal = options.signal;
  }

  async run(bytes: Uint8Array | AsyncIterable<Uint8Array>): Promise<void> {
    this.#signal?.throwIfAborted();
    const parts = intoParts(bytes, this.#partBytes)[Symbol.asyncIterator]();
    const first = await parts.next();
    const part = first.done ? new Uint8Array(0) : first.value;
    const second = part.byteLength < this.#partBytes ? undefined : await parts.next();
    this.#signal?.throwIfAborted();
    if (second === undefined || second.done) await this.#whole(part);
    else await this.#multipart(part, second.value, parts);
  }

  async #whole(bytes: Uint8Array): Promise<void> {
    const { s3, bucket, key } = this.#object;
    const put = (condition: { IfNoneMatch?: string }) => {
      const input = { Bucket: bucket, Key: key, Body: bytes, ContentLength: bytes.byteLength, ...condition };
      return this.#guard(() => s3.client.send(new s3.sdk.PutObjectCommand(input), this.#abort()));
    };
    if (!this.#ifAbsent) {
      await put({});
    } else if (!(await this.#conditionally(() => put({ IfNoneMatch: "*" })))) {
      await this.#checkAbsent();
      await put({});
    }
  }

  async #multipart(
    first: Uint8Array,
    second: Uint8Array,
    rest: AsyncIterator<Uint8Array, unknown>,
  ): Promise<void> {
    const { s3, bucket, key } = this.#object;
    const target = { Bucket: bucket, Key: key };
    // Early, so that what exists already is not sent in vain; servers that have conditions say so again at the end.
    if (this.#ifAbsent) await this.#checkAbsent();
    const begin = new s3.sdk.CreateMultipartUploadCommand(target);
    const { UploadId } = await this.#guard(() => s3.client.send(begin, this.#abort()));
    const upload = { ...target, UploadId };
    try {
      const etags = [await this.#part(upload, 1, first), await this.#part(upload, 2, second)];
      for (let next = await rest.next(); !next.done; next = await rest.next()) {
        if (etags.length === PARTS_MAX) throw this.#tooLong();
        etags.push(await this.#part(upload, etags.length + 1, next.value));
      }
      const Parts = etags.map((ETag, index) => ({ ETag, PartNumber: index + 1 }));
      const complete = (condition: { IfNoneMatch?: string }) => {
        const input = { ...upload, MultipartUpload: { Parts }, ...condition };
        const command = new s3.sdk.CompleteMultipartUploadCommand(input);
        return this.#guard(() => s3.client.send(command, this.#abort()));
      };
      const isDone = this.#ifAbsent && (await this.#conditionally(() => complete({ IfNoneMatch: "*" })));
      if (!isDone) await complete({});
    } catch (error) {
      // Not with the signal: what was begun is taken back even, and just then, when it was aborted.
      await s3.client.send(new s3.sdk.AbortMultipartUploadCommand(upload)).catch(() => {});
      throw error;
    }
    // A server may take the condition of a completion and not look at it: Swift does.
    if (this.#ifAbsent) this.atomicity = "checked";
  }

  async #part(
    upload: { readonly Bucket: string; readonly Key: string; readonly UploadId: string | undefined },
    PartNumber: number,
    Body: Uint8Array,
  ): Promise<string | undefined> {
    const { s3 } = this.#object;
    const command = new s3.sdk.UploadPartCommand({
      ...upload,
      PartNumber,
      Body,
      ContentLength: Body.byteLength,
    });
    return (await this.#guard(() => s3.client.send(command, this.#abort()))).ETag;
  }

  /** False where the server has no conditional writes. */
  async #conditionally(write: () => Promise<unknown>): Promise<boolean> {
    for (let conflict = 1; ; conflict++) {
      try {
        await write();
        return true;
      } catch (error) {
        const status = error instanceof ServiceError ? error.status : undefined;
        if (status === 412) throw this.#exists();
        if (status === 501) {
          this.atomicity = "checked";
          return false;
        }
        // 409: another conditional write is under way; only its end decides.
        if (status !== 409 || conflict === CONFLICTS_MAX) throw error;
      }
    }
  }

  async #checkAbsent(): Promise<void> {
    const { s3, bucket, key } = this.#object;
    const head = new s3.sdk.HeadObjectCommand({ Bucket: bucket, Key: key });
    try {
      await this.#guard(() => s3.client.send(head, this.#abort()));
    } catch (error) {
      if (error instanceof ServiceError && error.status === 404) return;
      throw error;
    }
    throw this.#exists();
  }

  async #guard<T>(request: () => Promise<T>): Promise<T> {
    try {
      return await request();
    } catch (error) {
      this.#signal?.throwIfAborted();
      const failure = s3Failure(error, this.#object.name);
      throw failure instanceof MinorfaultError ? new ServiceError(failure, statusOf(error)) : failure;
    }
  }

  #abort(): { abortSignal?: AbortSignal } {
    return this.#signal === undefined ? {} : { abortSignal: this.#signal };
  }

  #exists(): MinorfaultError {
    return new MinorfaultError("ERR_STORE_EXISTS", `${this.#object.name} is there already`);
  }

  #tooLong(): MinorfaultError {
    return new MinorfaultError(
      "ERR_LIMIT",
      `${this.#object.name} would have more than ${PARTS_MAX} parts of ${this.#partBytes} bytes`,
    );
  }
}

/** A failure together with the status that it came from. */
class ServiceError extends MinorfaultError {
  readonly status: number | undefined;

  constructor(failure: MinorfaultError, status: number | undefined) {
    super(failure.code, failure.message, { retryable: failure.retryable, hint: failure.hint });
    this.status = status;
  }
}

/** The bytes in pieces of exactly `partBytes`, but for the last one. */
async function* intoParts(
  bytes: Uint8Array | AsyncIterable<Uint8Array>,
  partBytes: number,
): AsyncGenerator<Uint8Array> {
  if (bytes instanceof Uint8Array) {
    for (let start = 0; start < bytes.byteLength; start += partBytes) {
      yield bytes.subarray(start, start + partBytes);
    }
    return;
  }
  let pieces: Uint8Array[] = [];
  let length = 0;
  for await (const piece of bytes) {
    for (let start = 0; start < piece.byteLength; ) {
      // A copy: the producer may use its memory again.
      const taken = piece.slice(start, start + partBytes - length);
      pieces.push(taken);
      length += taken.byteLength;
      start += taken.byteLength;
      if (length < partBytes) continue;
      yield Buffer.concat(pieces);
      pieces = [];
      length = 0;
    }
  }
  if (length > 0) yield Buffer.concat(pieces);
}
