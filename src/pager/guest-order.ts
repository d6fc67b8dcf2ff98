// What a serving thread is told of a guest, made of what its owner has asked for.

import { PAGE_SIZE } from "../abi/memory.ts";
import { hasBit, setBits, wordsFor } from "../base/bitmap.ts";
import { duplicate, local } from "../linux/index.ts";
import type { GuestOrder, ImageOrder, RegionOrder } from "./control.ts";
import { makeCounters } from "./counters.ts";
import type { PagerOptions, PagerRegion } from "./options.ts";
import { makeTrace } from "./trace.ts";

const FAULT_AROUND_PAGES = 16;

/** The order, with duplicates of the descriptors, which are the thread's from then on. */
export function makeGuestOrder(guest: number, options: PagerOptions, image: ImageOrder): GuestOrder {
  const { regions, plan, trace = false, guest: whose, budgetBytes = 0, writes = "ignore" } = options;
  const duplicateOf = (fd: number | undefined): number => (fd === undefined ? -1 : duplicate(local, fd));
  return {
    guest,
    regions: regions.map((region) => regionOrder(region, options)),
    windowPages: trace ? 1 : (plan?.faultAroundPages ?? FAULT_AROUND_PAGES),
    isAdaptive: !trace && (plan?.adaptive ?? ("source" in image && plan?.faultAroundPages === undefined)),
    trace: trace ? makeTrace() : undefined,
    image,
    counters: makeCounters(),
    guestPid: whose?.pid ?? 0,
    tid: whose?.tid ?? whose?.pid ?? 0,
    isOwnMemory: options.isOwnMemory === true,
    budgetBytes,
    writes,
    swapBytes: Math.max(...regions.map((region) => region.imageOffset + region.byteLength)),
    shapes: regions.map(({ start, byteLength, imageOffset, pageSize = PAGE_SIZE }) => ({
      start,
      byteLength,
      imageOffset,
      pageSize,
    })),
    adopts: options.adopt === true,
    says: options.says === true,
    fd: duplicate(local, options.descriptor),
    swapFd: duplicateOf(options.swapDescriptor),
    stateFd: duplicateOf(options.stateDescriptor),
  };
}

/** A region with its bitmaps, in memory that both threads see. */
function regionOrder(
  region: PagerRegion,
  { zeroPages, writes: mode, stateDescriptor }: PagerOptions,
): RegionOrder {
  const { start, byteLength, imageOffset, pageSize = PAGE_SIZE } = region;
  const pageCount = byteLength / pageSize;
  const bitmap = (): Uint32Array => new Uint32Array(new SharedArrayBuffer(wordsFor(pageCount) * 4));
  const zero = stateDescriptor === undefined || zeroPages !== undefined ? bitmap() : undefined;
  let hasZeros = false;
  // A bit of the image stands for 4 KiB: it tells nothing of a huge page, or of content that is not aligned to it.
  if (
    zero !== undefined &&
    zeroPages !== undefined &&
    pageSize === PAGE_SIZE &&
    imageOffset % PAGE_SIZE === 0
  ) {
    const first = imageOffset / PAGE_SIZE;
    for (let page = 0; page < pageCount && first + page < zeroPages.length * 32; page++) {
      if (!hasBit(zeroPages, first + page)) continue;
      setBits(zero, page, page + 1);
      hasZeros = true;
    }
  }
  const writes = mode === "track" ? { written: bitmap(), swapped: bitmap(), flushing: bitmap() } : undefined;
  return { start, pageSize, pageCount, imageOffset, resident: bitmap(), zero, hasZeros, writes };
}
