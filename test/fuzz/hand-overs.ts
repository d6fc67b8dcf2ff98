// Hand-overs at random: right ones, and right ones that were damaged as bytes, as JSON, or in what they say. What the parser
// takes is judged by rules of its own here, written without looking at the parser's.

import { HUGE_PAGE_SIZE, PAGE_SIZE } from "../../src/abi/memory.ts";
import { MinorfaultError } from "../../src/base/errors.ts";
import type { Random } from "../../src/base/random.ts";
import { DEFAULT_LIMITS } from "../../src/daemon/config.ts";
import type { GuestRegion } from "../../src/daemon/guests.ts";
import { HandOverMessage, parseHandOver } from "../../src/daemon/hand-over.ts";
import { handOverMessage, type MessageRegion, type VmmVersion } from "../daemon/vmm-message.ts";

export interface HandOver {
  readonly bytes: Uint8Array;
  /** The regions that it was made of, if it was left as it is: then it must be taken. */
  readonly right: readonly MessageRegion[] | undefined;
}

const VERSIONS: readonly VmmVersion[] = ["1.1", "1.7", "1.12"];
const FIELDS = ["base_host_virt_addr", "size", "offset", "page_size", "page_size_kib", "is_guest_memfd"];
const USER_ADDRESSES_UNTIL = 2 ** 47 - PAGE_SIZE;

/** Values that somebody might not expect. */
const VALUES: readonly unknown[] = [
  ...[0, -0, 1, -1, 0.5, 4095, 4096, 4097, 8192, -4096, HUGE_PAGE_SIZE, 2 ** 30, 2 ** 31, 2 ** 32],
  ...[
    2 ** 46,
    2 ** 47,
    2 ** 47 - 4096,
    2 ** 52,
    2 ** 53 - 4096,
    2 ** 53,
    2 ** 63,
    2 ** 64 - 4096,
    1e308,
    -1e308,
  ],
  ...["4096", "", "0x1000", null, true, false, [], [4096], {}, { size: 4096 }, "\u0000", "\ud800"],
];

export class HandOverFuzzer {
  readonly #random: Random;
  readonly #imageBytes: number;
  /** Regions that are real, for hand-overs that reach a server. */
  readonly #real: readonly MessageRegion[] | undefined;

  constructor(random: Random, imageBytes: number, real?: readonly MessageRegion[]) {
    this.#random = random;
    this.#imageBytes = imageBytes;
    this.#real = real;
  }

  next(): HandOver {
    const regions = this.#real ?? this.#regions();
    const version = this.#pick(VERSIONS);
    const text = handOverMessage(regions, version);
    const kind = this.#random.below(10);
    // The oldest spelling can't say that pages are huge.
    const isSayable = version !== "1.1" || regions.every(({ pageSize }) => pageSize !== HUGE_PAGE_SIZE);
    if (kind === 0 && isSayable) return { bytes: encode(text), right: regions };
    if (kind < 6) return { bytes: encode(this.#lie(text)), right: undefined };
    return { bytes: this.#damage(encode(kind < 8 ? this.#lie(text) : text)), right: undefined };
  }

  /** Cuts bytes into pieces as a stream may. */
  pieces(bytes: Uint8Array): Uint8Array[] {
    const pieces: Uint8Array[] = [];
    const most = this.#pick([1, 7, 100, 65_536]);
    for (let at = 0; at < bytes.byteLength; ) {
      const until = at + 1 + this.#random.below(most);
      pieces.push(bytes.subarray(at, until));
      at = until;
    }
    return pieces;
  }

  #regions(): MessageRegion[] {
    const random = this.#random;
    const regions: MessageRegion[] = [];
    let address = (1 + random.below(2 ** 20)) * HUGE_PAGE_SIZE;
    let imageOffset = 0;
    for (let count = 1 + random.below(4); count > 0; count--) {
      const pageSize = random.below(4) === 0 ? HUGE_PAGE_SIZE : PAGE_SIZE;
      imageOffset = Math.ceil(imageOffset / pageSize) * pageSize;
      const room = this.#imageBytes - imageOffset;
      const byteLength = pageSize * (1 + random.below(16));
      if (byteLength > room) break;
      regions.push({ address, byteLength, imageOffset, pageSize });
      address += byteLength + HUGE_PAGE_SIZE * random.below(3);
      address = Math.ceil(address / HUGE_PAGE_SIZE) * HUGE_PAGE_SIZE;
      imageOffset += byteLength;
    }
    return regions;
  }

  /** The same message with something in it changed. */
  #lie(text: string): string {
    const random = this.#random;
    const regions = JSON.parse(text) as Record<string, unknown>[];
    for (let lies = 1 + random.below(2); lies > 0; lies--) {
      const region = regions[random.below(regions.length)];
      if (region === undefined) break;
      const field = this.#pick(FIELDS);
      const kind = random.below(8);
      if (kind < 3) region[field] = this.#pick(VALUES);
      else if (kind === 3) delete region[field];
      else if (kind === 4) regions.push({ ...region, [field]: this.#pick(VALUES) });
      else if (kind === 5)
        region[this.#pick(["__proto__", "toString", "x".repeat(random.below(300))])] = 4096;
      else
        region[field] =
          Number(region[field] ?? 0) + this.#pick([1, -1, 8, 512, PAGE_SIZE, -PAGE_SIZE, 2 ** 40]);
    }
    if (random.below(20) === 0)
      for (let more = random.below(300); more > 0; more--) regions.push({ ...regions[0] });
    const lie = JSON.stringify(random.below(20) === 0 ? { regions } : regions);
    return random.below(10) === 0
      ? lie.replace(/\d+/, this.#pick(["1e400", "-0", "00", "1E3", "NaN", "4096.0", "١"]))
      : lie;
  }

  #damage(bytes: Uint8Array): Uint8Array {
    const random = this.#random;
    const at = random.below(bytes.byteLength);
    const until = Math.min(bytes.byteLength, at + 1 + random.below(20));
    switch (random.below(6)) {
      case 0: {
        const flipped = bytes.slice();
        for (let flips = 1 + random.below(4); flips > 0; flips--) {
          flipped[random.below(bytes.byteLength)]! ^= 1 << random.below(8);
        }
        return flipped;
      }
      case 1:
        return bytes.slice(0, at);
      case 2:
        return joined(bytes.subarray(0, at), bytes.subarray(until));
      case 3:
        return joined(bytes.subarray(0, until), bytes.subarray(at));
      case 4:
        return joined(
          bytes.subarray(0, at),
          encode(this.#pick(["[", "]", "{", "}", '"', "\\", ",", " ", "\0", "\n"])),
          bytes.subarray(at),
        );
      default: {
        const noise = Uint8Array.from({ length: 1 + random.below(40) }, () => random.uint32());
        return joined(bytes.subarray(0, at), noise, bytes.subarray(at));
      }
    }
  }

  #pick<T>(values: readonly T[]): T {
    return values[this.#random.below(values.length)]!;
  }
}

/** What the parser makes of a hand-over that comes in these pieces: regions, or why not. Anything else it throws is a bug. */
export function parse(pieces: readonly Uint8Array[], imageBytes: number): readonly GuestRegion[] | string {
  const message = new HandOverMessage(DEFAULT_LIMITS.messageBytesMax);
  try {
    for (const piece of pieces) message.push(piece);
    if (!message.isComplete) return "incomplete";
    return parseHandOver(message.text(), imageBytes, DEFAULT_LIMITS);
  } catch (error) {
    if (error instanceof MinorfaultError && error.code === "ERR_BAD_HAND_OVER") return error.message;
    throw error;
  }
}

/** What is wrong with regions that were taken; undefined when nothing is. */
export function wrongIn(regions: readonly GuestRegion[], imageBytes: number): string | undefined {
  if (regions.length < 1 || regions.length > DEFAULT_LIMITS.regionsMax) return `${regions.length} regions`;
  for (const [index, region] of regions.entries()) {
    const { start, byteLength, imageOffset, pageSize } = region;
    if (pageSize !== PAGE_SIZE && pageSize !== HUGE_PAGE_SIZE) return `pages of ${pageSize}`;
    for (const value of [start, byteLength, imageOffset]) {
      if (!Number.isSafeInteger(value) || value < 0 || value % pageSize !== 0) return `the number ${value}`;
    }
    if (start === 0 || byteLength === 0) return "something that is 0";
    if (start + byteLength > USER_ADDRESSES_UNTIL) return "addresses that nobody has";
    if (imageOffset + byteLength > Math.ceil(imageBytes / pageSize) * pageSize) return "more than the image";
    for (const other of regions.slice(0, index)) {
      if (start < other.start + other.byteLength && other.start < start + byteLength) return "an overlap";
      if (
        imageOffset < other.imageOffset + other.byteLength &&
        other.imageOffset < imageOffset + byteLength
      ) {
        return "content twice";
      }
    }
  }
  const bytes = regions.reduce((sum, { byteLength }) => sum + byteLength, 0);
  return bytes > DEFAULT_LIMITS.guestBytesMax ? `${bytes} bytes in all` : undefined;
}

function encode(text: string): Uint8Array {
  return new TextEncoder().encode(text);
}

function joined(...parts: readonly Uint8Array[]): Uint8Array {
  return new Uint8Array(Buffer.concat(parts));
}
