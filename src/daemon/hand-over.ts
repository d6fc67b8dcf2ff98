// The hand-over of a guest, in Firecracker's form: one JSON array of regions, one userfaultfd beside it, nothing else.
//
//   [{"base_host_virt_addr":…,"size":…,"offset":…,"page_size":…,"page_size_kib":…}, …]  +  one descriptor
//
// A pure parser: bytes come in as they arrive, in any pieces, and every field is checked before anybody makes an ioctl.
// There is no length before the message and no end behind it, so its end is where the brackets close; that is found by
// looking at each byte once, so that a peer who sends one byte at a time costs no more than one who sends them at once.

import { HUGE_PAGE_SIZE, PAGE_SIZE, TASK_SIZE } from "../abi/memory.ts";
import { hex, MinorfaultError } from "../base/errors.ts";
import type { ServerLimits } from "./config.ts";
import type { GuestRegion } from "./guests.ts";

const CODE = { QUOTE: 0x22, BACKSLASH: 0x5c, OPEN: 0x5b, CLOSE: 0x5d, OPEN_OBJECT: 0x7b, CLOSE_OBJECT: 0x7d };
const SPACES: ReadonlySet<number> = new Set([0x20, 0x09, 0x0a, 0x0d]);
/** LIMIT: an array of objects with plain fields is two deep. */
const DEPTH_MAX = 2;

/** Collects a message until its brackets have closed. */
export class HandOverMessage {
  readonly #bytesMax: number;
  readonly #pieces: Uint8Array[] = [];
  #byteLength = 0;
  #depth = 0;
  #isInString = false;
  #isEscaped = false;
  #isComplete = false;

  constructor(bytesMax: number) {
    this.#bytesMax = bytesMax;
  }

  get isComplete(): boolean {
    return this.#isComplete;
  }

  get byteLength(): number {
    return this.#byteLength;
  }

  /** @throws ERR_BAD_HAND_OVER as soon as it can't become a hand-over any more. */
  push(bytes: Uint8Array): void {
    this.#byteLength += bytes.byteLength;
    if (this.#byteLength > this.#bytesMax) {
      throw refused(`The message has more than ${this.#bytesMax} bytes`);
    }
    for (const byte of bytes) this.#look(byte);
    this.#pieces.push(bytes);
  }

  /** @throws ERR_BAD_HAND_OVER when the bytes are no UTF-8. */
  text(): string {
    try {
      return new TextDecoder("utf-8", { fatal: true }).decode(Buffer.concat(this.#pieces));
    } catch {
      throw refused("The message is not UTF-8");
    }
  }

  #look(byte: number): void {
    if (this.#isInString) {
      if (this.#isEscaped) this.#isEscaped = false;
      else if (byte === CODE.BACKSLASH) this.#isEscaped = true;
      else if (byte === CODE.QUOTE) this.#isInString = false;
      return;
    }
    if (SPACES.has(byte)) return;
    if (this.#isComplete) throw refused("Something follows the message");
    if (this.#depth === 0 && byte !== CODE.OPEN) throw refused("The message is not a JSON array");
    if (byte === CODE.QUOTE) this.#isInString = true;
    else if (byte === CODE.OPEN || byte === CODE.OPEN_OBJECT) this.#deeper();
    else if (byte === CODE.CLOSE || byte === CODE.CLOSE_OBJECT) this.#isComplete = --this.#depth === 0;
  }

  #deeper(): void {
    if (++this.#depth > DEPTH_MAX) throw refused("The message is nested too deep");
  }
}

export type HandOverLimits = Pick<ServerLimits, "regionsMax" | "guestBytesMax">;

/**
 * The regions of a complete message, in its order.
 *
 * @throws ERR_BAD_HAND_OVER with the region and the field that is wrong.
 */
export function parseHandOver(text: string, imageBytes: number, limits: HandOverLimits): GuestRegion[] {
  const items = parseArray(text);
  if (items.length === 0) throw refused("The message has no region");
  if (items.length > limits.regionsMax) {
    throw refused(`The message has ${items.length} regions, more than ${limits.regionsMax}`);
  }
  const regions = items.map((item, index) => region(item, index, imageBytes));
  checkApart(regions, "start", "lie at the same addresses");
  checkApart(regions, "imageOffset", "have the same content");
  const bytes = regions.reduce((sum, { byteLength }) => sum + byteLength, 0);
  if (bytes > limits.guestBytesMax) {
    throw refused(`The regions have ${bytes} bytes in all, more than ${limits.guestBytesMax}`);
  }
  return regions;
}

/** Whether the guest's end is the end of its connection, which our own say; Firecracker's is that of its process. */
export function endsWithConnection(text: string): boolean {
  return parseArray(text).some(
    (item) => (item as { ends_with_connection?: unknown }).ends_with_connection === true,
  );
}

function parseArray(text: string): readonly unknown[] {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    throw refused("The message is not JSON");
  }
  if (!Array.isArray(value)) throw refused("The message is not a JSON array");
  return value;
}

function region(item: unknown, index: number, imageBytes: number): GuestRegion {
  if (typeof item !== "object" || item === null || Array.isArray(item)) {
    throw refused(`Region ${index} is not an object`);
  }
  const fields = item as Readonly<Record<string, unknown>>;
  if (fields.is_guest_memfd !== undefined && fields.is_guest_memfd !== false) {
    throw refused(`Region ${index} has its memory in a guest_memfd, which is not served`);
  }
  const pageSize = pageSizeOf(fields, index);
  const start = integer(fields, "base_host_virt_addr", index);
  const byteLength = integer(fields, "size", index);
  const imageOffset = integer(fields, "offset", index);
  for (const [name, value] of [
    ["base_host_virt_addr", start],
    ["size", byteLength],
    ["offset", imageOffset],
  ] as const) {
    if (value % pageSize === 0) continue;
    throw refused(`${name} of region ${index} is ${value}, not a multiple of its page size ${pageSize}`);
  }
  if (start === 0) throw refused(`base_host_virt_addr of region ${index} is 0`);
  if (byteLength === 0) throw refused(`size of region ${index} is 0`);
  if (start + byteLength > TASK_SIZE) {
    throw refused(`Region ${index} at ${hex(start)} of ${byteLength} bytes ends beyond all addresses`);
  }
  // The last page of an image that does not end with one is completed with zeros.
  if (imageOffset + byteLength > Math.ceil(imageBytes / pageSize) * pageSize) {
    throw refused(
      `Region ${index} wants ${byteLength} bytes at offset ${imageOffset} of an image of ${imageBytes}`,
    );
  }
  return { start, byteLength, imageOffset, pageSize };
}

/** `page_size` from 1.12 on, before that `page_size_kib`, which has bytes too whatever its name says; none before 1.7. */
function pageSizeOf(fields: Readonly<Record<string, unknown>>, index: number): number {
  const names = ["page_size", "page_size_kib"].filter((name) => fields[name] !== undefined);
  const sizes = new Set(names.map((name) => integer(fields, name, index)));
  if (sizes.size > 1) {
    throw refused(`page_size and page_size_kib of region ${index} differ: ${[...sizes].join(" and ")}`);
  }
  const [size = PAGE_SIZE] = sizes;
  if (size === PAGE_SIZE || size === HUGE_PAGE_SIZE) return size;
  throw refused(`A page of region ${index} has ${size} bytes, not ${PAGE_SIZE} or ${HUGE_PAGE_SIZE}`);
}

function integer(fields: Readonly<Record<string, unknown>>, name: string, index: number): number {
  const value = Object.hasOwn(fields, name) ? fields[name] : undefined;
  if (typeof value !== "number") throw refused(`${name} of region ${index} is not a number`);
  // A number that a double does not hold exactly is an address that nobody has.
  if (Number.isSafeInteger(value) && value >= 0) return value;
  throw refused(`${name} of region ${index} is ${value}, not an integer from 0 to 2^53`);
}

/** Sorted once: a hundred regions are no reason for ten thousand comparisons. */
function checkApart(regions: readonly GuestRegion[], key: "start" | "imageOffset", how: string): void {
  const sorted = regions.map((each, index) => ({ index, at: each[key], byteLength: each.byteLength }));
  sorted.sort((a, b) => a.at - b.at);
  for (const [place, { at, index }] of sorted.entries()) {
    const before = sorted[place - 1];
    if (before === undefined || before.at + before.byteLength <= at) continue;
    throw refused(`Regions ${before.index} and ${index} ${how}`);
  }
}

export function refused(message: string): MinorfaultError {
  return new MinorfaultError("ERR_BAD_HAND_OVER", message);
}
