// What can be known to be wrong with a pager's options is refused here, before any system call.

import { HUGE_PAGE_SIZE, PAGE_SIZE } from "../abi/memory.ts";
import { hex, MinorfaultError } from "../base/errors.ts";
import { overlaps } from "../base/range.ts";
import type { PagerOptions, PagerRegion, PagerSource } from "./options.ts";
import { WINDOW_PAGES_MAX } from "./plan.ts";

const PLACEMENTS: ReadonlySet<string> = new Set(["auto", "same-cpu", "spin", "block"]);

/** Throws ERR_BAD_ARGUMENT, ERR_UNALIGNED or ERR_OUT_OF_RANGE. */
export function checkPagerOptions(options: PagerOptions): void {
  if (typeof options !== "object" || options === null) throw bad("A pager needs options");
  checkInteger("descriptor", options.descriptor, 0);
  if (!Array.isArray(options.regions) || options.regions.length === 0) {
    throw bad("A pager needs at least one region");
  }
  for (const region of options.regions) checkRegion(region);
  checkApart(options.regions);
  const { image, source, plan, placement, guest, zeroPages } = options;
  if ((image === undefined) === (source === undefined))
    throw bad("A pager needs an image or a source, one of them");
  if (source !== undefined) checkSource(source, options.regions);
  if (source?.atDeadline === "kill" && (guest === undefined || guest.pid === process.pid)) {
    throw bad("atDeadline kill needs a guest in another process, and its pid");
  }
  if (image === undefined) {
    // The source is opened by the thread that fetches, which says what is wrong with it.
  } else if ("path" in image) {
    if (typeof image.path !== "string") throw bad("The image's path must be a string");
  } else {
    checkInteger("image byteLength", image.byteLength, 1);
    if ("address" in image) checkInteger("image address", image.address, 1);
    else checkInteger("image descriptor", image.descriptor, 0);
  }
  if (zeroPages !== undefined && !(zeroPages instanceof Uint32Array)) {
    throw bad("zeroPages must be a Uint32Array, one bit a page");
  }
  const pages = plan?.faultAroundPages;
  if (pages !== undefined) {
    checkInteger("faultAroundPages", pages, 1);
    if (pages > WINDOW_PAGES_MAX || (pages & (pages - 1)) !== 0) {
      throw outside(`faultAroundPages must be a power of two from 1 to ${WINDOW_PAGES_MAX}, not ${pages}`);
    }
  }
  if (placement !== undefined) checkPlacement(placement);
  const { adopt, stateDescriptor } = options;
  if (adopt !== undefined && adopt !== true) throw bad("adopt must be true, or not be there");
  if (stateDescriptor !== undefined) checkInteger("stateDescriptor", stateDescriptor, 0);
  if (guest !== undefined) {
    checkInteger("guest pid", guest.pid, 1);
    if (guest.tid !== undefined) checkInteger("guest tid", guest.tid, 1);
  }
}

export function checkPlacement(placement: unknown): void {
  if (PLACEMENTS.has(String(placement))) return;
  throw bad(`placement must be one of ${[...PLACEMENTS].join(", ")}, not ${String(placement)}`);
}

/** Throws ERR_OUT_OF_RANGE when a region's content lies beyond the image. */
export function checkImage(regions: readonly PagerRegion[], imageBytes: number): void {
  for (const { start, byteLength, imageOffset } of regions) {
    // The last page of a file that is not a multiple of the page size is completed with zeros by the mapping.
    if (imageOffset + byteLength > Math.ceil(imageBytes / PAGE_SIZE) * PAGE_SIZE) {
      throw outside(
        `The region at ${hex(start)} wants ${byteLength} bytes at offset ${imageOffset} of an image of ${imageBytes}`,
      );
    }
  }
}

function checkSource(source: PagerSource, regions: readonly PagerRegion[]): void {
  const name = "url" in source ? source.url : source.module;
  if (typeof name !== "string" || name === "") throw bad("A source needs a url or a module");
  for (const { start, imageOffset, pageSize = PAGE_SIZE } of regions) {
    if (imageOffset % pageSize === 0) continue;
    throw new MinorfaultError(
      "ERR_UNALIGNED",
      `The region at ${hex(start)} begins at offset ${imageOffset} of its source, which is not where a page begins`,
    );
  }
}

function checkRegion({ start, byteLength, imageOffset, pageSize = PAGE_SIZE }: PagerRegion): void {
  if (pageSize !== PAGE_SIZE && pageSize !== HUGE_PAGE_SIZE) {
    throw bad(`A page has ${PAGE_SIZE} or ${HUGE_PAGE_SIZE} bytes, not ${pageSize}`);
  }
  checkInteger("region start", start, 1);
  checkInteger("region byteLength", byteLength, 1);
  checkInteger("region imageOffset", imageOffset, 0);
  if (start % pageSize !== 0 || byteLength % pageSize !== 0) {
    throw new MinorfaultError(
      "ERR_UNALIGNED",
      `The region at ${hex(start)} of ${byteLength} bytes does not consist of whole pages of ${pageSize} bytes`,
      { address: start, byteLength },
    );
  }
  if (!Number.isSafeInteger(start + byteLength) || !Number.isSafeInteger(imageOffset + byteLength)) {
    throw outside(`The region at ${hex(start)} ends beyond all addresses`);
  }
}

function checkApart(regions: readonly PagerRegion[]): void {
  const ranges = regions.map(({ start, byteLength }) => ({ start, until: start + byteLength }));
  for (const [index, range] of ranges.entries()) {
    const other = ranges.slice(index + 1).find((candidate) => overlaps(range, candidate));
    if (other !== undefined) {
      throw outside(`The regions at ${hex(range.start)} and ${hex(other.start)} overlap`);
    }
  }
}

function checkInteger(name: string, value: number, least: number): void {
  if (!Number.isSafeInteger(value)) throw bad(`${name} must be an integer, not ${String(value)}`);
  if (value < least) throw outside(`${name} must be at least ${least}, not ${value}`);
}

function bad(message: string): MinorfaultError {
  return new MinorfaultError("ERR_BAD_ARGUMENT", message);
}

function outside(message: string): MinorfaultError {
  return new MinorfaultError("ERR_OUT_OF_RANGE", message);
}
