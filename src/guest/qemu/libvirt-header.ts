// `virsh save` puts a header and the machine's XML in front of the stream:
//
//   "LibvirtQemudSave" │ u32 version, xml length, was running, format, cookie, 14 spare (the host's byte order) │ XML
//
// Both are passed over; only a stream that was not compressed begins behind them.

import type { Parsing, Scanner } from "./scanner.ts";

const COMPLETE = "LibvirtQemudSave";
const INCOMPLETE = "LibvirtQemudPart";
const HEADER_BYTES = 92;
const FORMATS = ["raw", "gzip", "bzip2", "xz", "lzop", "zstd", "sparse"];
const VERSION_MAX = 3;
/** LIMIT: bytes of the machine's XML, which is not held. */
const XML_BYTES_MAX = 64 * 2 ** 20;

export function* readLibvirtHeader(scanner: Scanner): Parsing {
  const { feed } = scanner;
  const { offset } = feed;
  const isLibvirt = feed.peekU32(0) === 0x4c696276; // "Libv"
  if (!isLibvirt) return;
  scanner.place = "libvirt's header";
  yield* scanner.need(HEADER_BYTES);
  const magic = scanner.text(16, offset);
  if (magic === INCOMPLETE)
    throw scanner.refusal("ERR_BAD_MESSAGE", "libvirt did not finish this file", offset);
  if (magic !== COMPLETE)
    throw scanner.refusal("ERR_BAD_MESSAGE", "it begins neither with QEVM nor as libvirt's files", offset);
  const bytes = feed.take(HEADER_BYTES - 16);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const isLittle = view.getUint32(0, true) <= VERSION_MAX;
  const version = view.getUint32(0, isLittle);
  const xmlBytes = view.getUint32(4, isLittle);
  const format = view.getUint32(12, isLittle);
  if (version < 1 || version > VERSION_MAX) {
    throw scanner.refusal("ERR_STREAM_FEATURE", `libvirt's header has version ${version}`, offset + 16);
  }
  if (format !== 0) {
    const name = FORMATS[format] ?? `number ${format}`;
    throw scanner.refusal(
      "ERR_STREAM_FEATURE",
      `libvirt saved it in the format ${name}, not raw`,
      offset + 28,
    );
  }
  if (xmlBytes > XML_BYTES_MAX) {
    throw scanner.refusal("ERR_BAD_MESSAGE", `libvirt's XML has ${xmlBytes} bytes`, offset + 20);
  }
  yield* scanner.skipTo(feed.offset + xmlBytes);
  yield { kind: "libvirt", offset, xmlBytes };
  scanner.place = "the header";
}
