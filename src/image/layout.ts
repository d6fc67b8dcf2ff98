// From regions to the flat space of an image: each region begins with a chunk, and with a page of its own size.
//
//   flat space   │ low (4 KiB pages) ▒│░░░░│ high (2 MiB pages)   ▒│     ▒ zeros up to the end of the chunk
//                0                         next multiple of 2 MiB        ░ zeros between regions, stored nowhere

import { MinorfaultError } from "../base/errors.ts";
import { roundUp } from "../base/range.ts";
import { IMAGE_BYTES_MAX, PAGE_BYTES, REGIONS_MAX } from "./limits.ts";
import type { ManifestRegion } from "./manifest.ts";
import { checkName } from "./names.ts";

export interface RegionShape {
  readonly name: string;
  readonly guestAddress: number;
  /** Bytes that are given; the region ends with the page in which they end. */
  readonly dataBytes: number;
  readonly pageSize: 4096 | 2097152;
}

export function layOut(
  shapes: readonly RegionShape[],
  chunkBytes: number,
): { regions: ManifestRegion[]; byteLength: number } {
  if (shapes.length === 0 || shapes.length > REGIONS_MAX) {
    throw new MinorfaultError("ERR_BAD_ARGUMENT", `An image has from 1 to ${REGIONS_MAX} regions`);
  }
  let end = 0;
  const regions = shapes.map(({ name, guestAddress, dataBytes, pageSize }) => {
    checkName("a region", name);
    if (!Number.isSafeInteger(guestAddress) || guestAddress < 0 || guestAddress % PAGE_BYTES !== 0) {
      throw new MinorfaultError("ERR_UNALIGNED", `Region ${name} is at ${guestAddress}, which is no page`);
    }
    if (!Number.isSafeInteger(dataBytes) || dataBytes < 1) {
      throw new MinorfaultError("ERR_OUT_OF_RANGE", `Region ${name} has ${dataBytes} bytes`);
    }
    const offset = roundUp(end, Math.max(pageSize, chunkBytes));
    const byteLength = roundUp(dataBytes, pageSize);
    end = offset + byteLength;
    return { name, guestAddress, byteLength, dataBytes, offset, pageSize };
  });
  const byteLength = roundUp(end, chunkBytes);
  if (byteLength > IMAGE_BYTES_MAX) {
    throw new MinorfaultError("ERR_LIMIT", `The image has ${byteLength} bytes, at most ${IMAGE_BYTES_MAX}`);
  }
  if (new Set(regions.map(({ name }) => name)).size !== regions.length) {
    throw new MinorfaultError("ERR_BAD_ARGUMENT", "Two regions have one name");
  }
  return { regions, byteLength };
}
