// What the parts of the stream's reader share: the bytes, where they are, and how something is refused.
//
// A parser here is a generator. It yields a number when it needs so many bytes to go on, or ANYTHING when any news
// will do, and a StreamEvent when it has understood something; so it can stop within any byte and go on later.

import { type ErrorCode, hex, MinorfaultError } from "../../base/errors.ts";
import { ByteFeed } from "./byte-feed.ts";
import type { StreamEvent } from "./stream-event.ts";

export type Parsing<T = void> = Generator<number | StreamEvent, T, void>;

/** Go on when bytes have come, or have been passed over, or the stream has ended. */
export const ANYTHING = -1;

export class Scanner {
  readonly feed: ByteFeed;
  /** What is being read, for messages: "section ram (part)". */
  place = "the header";
  isEnded = false;
  /** Bytes that nobody wants to see: whoever feeds us may pass over them. */
  skippable = 0;

  constructor(offset: number) {
    this.feed = new ByteFeed(offset);
  }

  *need(byteLength: number): Parsing {
    if (this.feed.available < byteLength) yield byteLength;
  }

  /** A text behind its length of one byte. */
  *name(): Parsing<string> {
    yield* this.need(1);
    const { offset } = this.feed;
    const byteLength = this.feed.u8();
    yield* this.need(byteLength);
    return this.text(byteLength, offset);
  }

  text(byteLength: number, offset: number): string {
    try {
      return this.feed.text(byteLength);
    } catch (cause) {
      throw this.refusal("ERR_BAD_MESSAGE", "a name is not UTF-8", offset, cause);
    }
  }

  /** Goes to an offset ahead. */
  *skipTo(target: number): Parsing {
    const { feed } = this;
    for (;;) {
      feed.drop(target - feed.offset);
      if (feed.offset >= target) break;
      this.skippable = target - feed.offset;
      yield ANYTHING;
    }
    this.skippable = 0;
  }

  refusal(
    code: ErrorCode,
    reason: string,
    offset: number = this.feed.offset,
    cause?: unknown,
  ): MinorfaultError {
    const message = `The stream of QEMU is refused in ${this.place} at offset ${offset} (${hex(offset)}): ${reason}`;
    return new MinorfaultError(code, message, { cause });
  }

  /** The error of a stream that ends where more must come. */
  cut(): MinorfaultError {
    const end = this.feed.offset + this.feed.available;
    return new MinorfaultError(
      "ERR_SOURCE_SHORT",
      `The stream of QEMU ends at offset ${end} (${hex(end)}), in ${this.place}`,
      { hint: "The file was cut or its writer failed; the connection broke. Nothing of it was used" },
    );
  }
}
