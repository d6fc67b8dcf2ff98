// The header of a zstd frame, and its blocks' lengths: read before a decoder sees it (RFC 8878, section 3.1.1).
//
//   28 B5 2F FD │ descriptor │ window? │ content size │ block │ block │ … │ checksum?
//                └ bits 7-6 content size's width, 5 single segment, 3 reserved, 2 checksum, 1-0 dictionary
//
// We accept one frame that declares its content's size, has no dictionary and ends where the bytes end. Frames that
// zstd would accept as well (several, skippable, of unknown size) are nothing that we write.

import { MinorfaultError } from "../base/errors.ts";

const MAGIC = 0xfd2f_b528;
const CHECKSUM_BYTES = 4;
const BLOCK_HEADER_BYTES = 3;
const BLOCK = { raw: 0, rle: 1, compressed: 2 } as const;
/** LIMIT: bytes that one block may have, by the format. */
const BLOCK_BYTES_MAX = 128 * 1024;

/** Throws ERR_SOURCE_CORRUPT unless `bytes` are one whole frame that declares `byteLength` bytes of content. */
export function checkFrame(bytes: Uint8Array, byteLength: number): void {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (view.byteLength < 6 || view.getUint32(0, true) !== MAGIC) throw corrupt("it does not begin like one");
  const descriptor = view.getUint8(4);
  if ((descriptor & 0b1000) !== 0) throw corrupt("it has a reserved bit");
  if ((descriptor & 0b11) !== 0) throw corrupt("it wants a dictionary");
  const isSingleSegment = (descriptor & 0b10_0000) !== 0;
  const sizeOffset = isSingleSegment ? 5 : 6;
  const width = [isSingleSegment ? 1 : 0, 2, 4, 8][descriptor >> 6] ?? 0;
  if (sizeOffset + width > view.byteLength) throw corrupt("its header is cut off");
  const declared = contentSize(view, sizeOffset, width);
  if (declared !== byteLength) {
    throw corrupt(`it declares ${declared ?? "no"} bytes, ${byteLength} were expected`);
  }
  const checksum = (descriptor & 0b100) !== 0 ? CHECKSUM_BYTES : 0;
  const end = endOfBlocks(view, sizeOffset + width) + checksum;
  if (end > view.byteLength) throw corrupt("it is cut off");
  if (end < view.byteLength) throw corrupt(`${view.byteLength - end} bytes follow it`);
}

function contentSize(view: DataView, offset: number, width: number): number | undefined {
  switch (width) {
    case 1:
      return view.getUint8(offset);
    case 2:
      return view.getUint16(offset, true) + 256;
    case 4:
      return view.getUint32(offset, true);
    case 8:
      return Number(view.getBigUint64(offset, true));
    default:
      return undefined;
  }
}

function endOfBlocks(view: DataView, start: number): number {
  let offset = start;
  for (;;) {
    if (offset + BLOCK_HEADER_BYTES > view.byteLength) throw corrupt("it is cut off");
    const header = view.getUint16(offset, true) | (view.getUint8(offset + 2) << 16);
    const isLast = (header & 1) !== 0;
    const type = (header >> 1) & 0b11;
    const size = header >>> 3;
    if (type > BLOCK.compressed || size > BLOCK_BYTES_MAX) throw corrupt("it has a block that cannot be");
    // A run stores its one byte, however long it is.
    offset += BLOCK_HEADER_BYTES + (type === BLOCK.rle ? 1 : size);
    if (isLast) return offset;
  }
}

function corrupt(reason: string): MinorfaultError {
  return new MinorfaultError("ERR_SOURCE_CORRUPT", `Bytes are not a zstd frame as stored here: ${reason}`);
}
