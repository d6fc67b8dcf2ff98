// The return path: what the destination of a post-copy migration sends to its source, on the same socket.
//
//   type, length │ as many bytes          and behind RECV_BITMAP: size │ bitmap │ end mark
//
//   1 shut       2 pong       3 request pages of a block       4 of the block of the last request
//   5 received pages of a block       6 resumed       7 switchover

import { hex, MinorfaultError } from "../../base/errors.ts";
import { ByteFeed } from "./byte-feed.ts";
import { ByteWriter } from "./byte-writer.ts";

const TYPE = {
  shut: 1,
  pong: 2,
  requestBlock: 3,
  request: 4,
  received: 5,
  resumed: 6,
  switchover: 7,
} as const;
const BITMAP_END_HIGH = 0x01234567;
const BITMAP_END_LOW = 0x89abcdef;

/** By type: its name, and how many bytes it may have. */
const TYPES: Readonly<Record<number, { readonly name: string; readonly min: number; readonly max: number }>> =
  {
    [TYPE.shut]: { name: "SHUT", min: 4, max: 4 },
    [TYPE.pong]: { name: "PONG", min: 4, max: 4 },
    [TYPE.requestBlock]: { name: "REQ_PAGES_ID", min: 14, max: 13 + 255 },
    [TYPE.request]: { name: "REQ_PAGES", min: 12, max: 12 },
    [TYPE.received]: { name: "RECV_BITMAP", min: 2, max: 256 },
    [TYPE.resumed]: { name: "RESUME_ACK", min: 4, max: 4 },
    [TYPE.switchover]: { name: "SWITCHOVER_ACK", min: 0, max: 0 },
  };

export type ReturnMessage =
  /** The destination has ended: 0 is well. */
  | { readonly kind: "shut"; readonly code: number }
  | { readonly kind: "pong"; readonly value: number }
  /** Bytes of a block; undefined: the block of the last request that named one. */
  | {
      readonly kind: "request";
      readonly block: string | undefined;
      readonly start: number;
      readonly byteLength: number;
    }
  /** Bits of pages that the destination has, in bytes: bit i % 8 of byte i / 8. */
  | { readonly kind: "received"; readonly block: string; readonly bitmap: Uint8Array }
  | { readonly kind: "resumed"; readonly value: number }
  | { readonly kind: "switchover" };

export interface ReturnPathOptions {
  /** LIMIT: bytes of a bitmap that is believed: those of the largest block, or 2 MiB (64 GiB of memory). */
  readonly bitmapBytesMax?: number;
}

export class ReturnPathReader {
  readonly #feed = new ByteFeed();
  readonly #bitmapBytesMax: number;
  #bitmapOf: string | undefined;
  #failure: unknown;

  constructor(options: ReturnPathOptions = {}) {
    this.#bitmapBytesMax = options.bitmapBytesMax ?? 2 * 2 ** 20;
  }

  get offset(): number {
    return this.#feed.offset;
  }

  /** Bytes that have come and are not a whole message yet. */
  get pendingBytes(): number {
    return this.#feed.available;
  }

  push(piece: Uint8Array): void {
    this.#feed.push(piece);
  }

  /** The next message, or undefined until more bytes have come. */
  read(): ReturnMessage | undefined {
    if (this.#failure !== undefined) throw this.#failure;
    try {
      return this.#bitmapOf === undefined ? this.#message() : this.#bitmap(this.#bitmapOf);
    } catch (error) {
      this.#failure = error;
      throw error;
    }
  }

  #message(): ReturnMessage | undefined {
    const feed = this.#feed;
    if (feed.available < 4) return undefined;
    const { offset } = feed;
    const head = feed.peekU32(0);
    const type = head >>> 16;
    const byteLength = head & 0xffff;
    const known = TYPES[type];
    if (known === undefined) throw refusal(`type ${type} is not known`, offset, "ERR_STREAM_FEATURE");
    if (byteLength < known.min || byteLength > known.max) {
      throw refusal(`${known.name} has ${byteLength} bytes`, offset);
    }
    if (feed.available < 4 + byteLength) return undefined;
    feed.drop(4);
    return this.#body(type, offset, byteLength);
  }

  #body(type: number, offset: number, byteLength: number): ReturnMessage | undefined {
    const feed = this.#feed;
    switch (type) {
      case TYPE.shut:
        return { kind: "shut", code: feed.u32() };
      case TYPE.pong:
        return { kind: "pong", value: feed.u32() };
      case TYPE.requestBlock:
      case TYPE.request: {
        const start = feed.u64();
        const length = feed.u32();
        const block = type === TYPE.request ? undefined : this.#name(byteLength - 12, offset);
        return { kind: "request", block, start, byteLength: length };
      }
      case TYPE.received:
        this.#bitmapOf = this.#name(byteLength, offset);
        return this.#bitmap(this.#bitmapOf);
      case TYPE.resumed:
        return { kind: "resumed", value: feed.u32() };
      default:
        return { kind: "switchover" };
    }
  }

  #bitmap(block: string): ReturnMessage | undefined {
    const feed = this.#feed;
    if (feed.available < 8) return undefined;
    const byteLength = feed.peekU32(0) * 2 ** 32 + feed.peekU32(4);
    if (byteLength > this.#bitmapBytesMax || byteLength === 0 || byteLength % 8 !== 0) {
      throw refusal(`the bitmap of block ${JSON.stringify(block)} has ${byteLength} bytes`, feed.offset);
    }
    if (feed.available < 16 + byteLength) return undefined;
    feed.drop(8);
    const bitmap = feed.take(byteLength).slice();
    const end = feed.offset;
    if (feed.u32() !== BITMAP_END_HIGH || feed.u32() !== BITMAP_END_LOW) {
      throw refusal(`the bitmap of block ${JSON.stringify(block)} does not end with its mark`, end);
    }
    this.#bitmapOf = undefined;
    return { kind: "received", block, bitmap };
  }

  /** A name that fills `room` bytes with its length. */
  #name(room: number, offset: number): string {
    const byteLength = this.#feed.u8();
    if (byteLength !== room - 1)
      throw refusal(`a name of ${byteLength} bytes does not fill its message`, offset);
    try {
      return this.#feed.text(byteLength);
    } catch (cause) {
      throw refusal("a name is not UTF-8", offset, "ERR_BAD_MESSAGE", cause);
    }
  }
}

/** A message as bytes: for the destination's side, which tests play. */
export function encodeReturnMessage(message: ReturnMessage): Uint8Array {
  const out = new ByteWriter(64);
  switch (message.kind) {
    case "shut":
      return out.u16(TYPE.shut).u16(4).u32(message.code).take();
    case "pong":
      return out.u16(TYPE.pong).u16(4).u32(message.value).take();
    case "request": {
      const { block, start, byteLength } = message;
      if (block === undefined) return out.u16(TYPE.request).u16(12).u64(start).u32(byteLength).take();
      const bytes = Buffer.byteLength(block);
      return out
        .u16(TYPE.requestBlock)
        .u16(13 + bytes)
        .u64(start)
        .u32(byteLength)
        .name(block)
        .take();
    }
    case "received": {
      const { block, bitmap } = message;
      out
        .u16(TYPE.received)
        .u16(1 + Buffer.byteLength(block))
        .name(block);
      return out.u64(bitmap.byteLength).bytes(bitmap).u32(BITMAP_END_HIGH).u32(BITMAP_END_LOW).take();
    }
    case "resumed":
      return out.u16(TYPE.resumed).u16(4).u32(message.value).take();
    case "switchover":
      return out.u16(TYPE.switchover).u16(0).take();
  }
}

function refusal(
  reason: string,
  offset: number,
  code: "ERR_BAD_MESSAGE" | "ERR_STREAM_FEATURE" = "ERR_BAD_MESSAGE",
  cause?: unknown,
): MinorfaultError {
  const message = `The return path of QEMU is refused at offset ${offset} (${hex(offset)}): ${reason}`;
  return new MinorfaultError(code, message, { cause });
}
