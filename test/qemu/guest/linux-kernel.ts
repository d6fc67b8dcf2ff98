// Takes the uncompressed kernel out of Debian's bzImage: QEMU starts that at once (PVH), while a machine that is only
// emulated takes seconds to decompress it itself.
//
//   bzImage   ├ setup sectors ├ decompressor … ├ LZ4 legacy frame = vmlinux ├ … ┤     boot.rst: payload_offset, _length
//
//   frame     ├ magic ├ length ├ block ├ length ├ block … ├ size of all ┤              lz4_Frame_format.md, "legacy"

const SETUP_SECTORS = 0x1f1;
const HEADER_MAGIC = 0x202;
const PAYLOAD_OFFSET = 0x248;
const PAYLOAD_LENGTH = 0x24c;
const LZ4_LEGACY = 0x184c2102;
const BLOCK_BYTES = 8 * 2 ** 20;
const MATCH_MIN = 4;

/** vmlinux, or undefined when it is compressed in another way: then the bzImage has to do. */
export function uncompressedKernel(bzImage: Buffer): Buffer | undefined {
  if (bzImage.toString("latin1", HEADER_MAGIC, HEADER_MAGIC + 4) !== "HdrS") return undefined;
  const start = ((bzImage[SETUP_SECTORS] || 4) + 1) * 512 + bzImage.readUInt32LE(PAYLOAD_OFFSET);
  const payload = bzImage.subarray(start, start + bzImage.readUInt32LE(PAYLOAD_LENGTH));
  if (payload.readUInt32LE(0) !== LZ4_LEGACY) return undefined;
  const blocks: Buffer[] = [];
  // The last four bytes are the length of all of it.
  for (let at = 4; at < payload.byteLength - 4; ) {
    const length = payload.readUInt32LE(at);
    blocks.push(decodeBlock(payload.subarray(at + 4, at + 4 + length)));
    at += 4 + length;
  }
  return Buffer.concat(blocks);
}

/** Sequences of literals and matches; the last has literals alone. */
function decodeBlock(block: Buffer): Buffer {
  const target = Buffer.alloc(BLOCK_BYTES);
  let from = 0;
  let to = 0;
  const length = (nibble: number): number => {
    let total = nibble;
    if (nibble < 15) return total;
    for (let byte = 255; byte === 255; total += byte) byte = block[from++]!;
    return total;
  };
  while (from < block.byteLength) {
    const token = block[from++]!;
    const literals = length(token >> 4);
    block.copy(target, to, from, from + literals);
    from += literals;
    to += literals;
    if (from >= block.byteLength) break;
    const distance = block.readUInt16LE(from);
    from += 2;
    const until = to + length(token & 15) + MATCH_MIN;
    // A match may overlap what it writes.
    for (; to < until; to++) target[to] = target[to - distance]!;
  }
  return target.subarray(0, to);
}
