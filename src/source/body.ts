// A response's body into memory of a known size: what doesn't fit is not read, what is missing is noticed.

import { MinorfaultError } from "../base/errors.ts";

/** After the signal was aborted nothing is written to the target any more. */
export async function fillFromBody(
  body: AsyncIterable<Uint8Array>,
  target: Uint8Array,
  name: string,
  signal: AbortSignal,
): Promise<void> {
  let length = 0;
  // Leaving the loop early destroys the stream, and with it the connection.
  for await (const chunk of body) {
    signal.throwIfAborted();
    if (length + chunk.byteLength > target.byteLength) {
      throw new MinorfaultError(
        "ERR_SOURCE_TOO_LONG",
        `${name} answers with more than the ${target.byteLength} bytes that were asked for`,
      );
    }
    target.set(chunk, length);
    length += chunk.byteLength;
  }
  signal.throwIfAborted();
  if (length < target.byteLength) {
    throw new MinorfaultError(
      "ERR_SOURCE_SHORT",
      `${name} answered with ${length} of ${target.byteLength} bytes`,
      { retryable: true },
    );
  }
}
