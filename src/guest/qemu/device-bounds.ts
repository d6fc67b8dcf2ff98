// Where the devices' state ends, and each device in it. Nothing in it says how long it is; but behind it stands a
// description that names every device in order, and the description's own length leads back to its beginning:
//
//   04 timer … 7e │ 04 cpu … 7e │ … 7e │ 00 │ 06 length, {"page_size": 4096, "devices": [{"name": "timer", …
//                                        ▲ the one place whose length leads to the very end

import * as v from "valibot";
import type { Parsing, Scanner } from "./scanner.ts";
import type { DeviceSection } from "./stream-event.ts";
import { PAGE_BYTES, SECTION } from "./stream-format.ts";

const FOOTER_BYTES = 5;

const descriptionSchema = v.looseObject({
  page_size: v.number(),
  devices: v.array(
    v.looseObject({ name: v.string(), instance_id: v.number(), version: v.optional(v.number()) }),
  ),
});
type Description = v.InferOutput<typeof descriptionSchema>;

/** Reports devices, end and description of `rest`, which lies at `offset` and is all that is left of a stream. */
export function* splitTail(scanner: Scanner, rest: Uint8Array, offset: number, isWhole: boolean): Parsing {
  const found = findDescription(rest);
  if (found === undefined) {
    if (!isWhole || rest.at(-1) !== SECTION.end) throw scanner.cut();
    const end = rest.byteLength - 1;
    if (end > 0) yield { kind: "devices", offset, bytes: rest.subarray(0, end), sections: [] };
    yield { kind: "end", offset: offset + end };
    return;
  }
  const { at, description } = found;
  if (description.page_size !== PAGE_BYTES) {
    const reason = `the guest's pages have ${description.page_size} bytes, not ${PAGE_BYTES}`;
    throw scanner.refusal("ERR_STREAM_FEATURE", reason, offset);
  }
  const bytes = rest.subarray(0, at);
  const sections = deviceSections(scanner, bytes, offset, description.devices);
  if (at > 0) yield { kind: "devices", offset, bytes, sections };
  yield { kind: "end", offset: offset + at };
  yield { kind: "description", offset: offset + at + 1, bytes: rest.subarray(at + 6) };
}

/** Where the stream's end and its description are. */
function findDescription(rest: Uint8Array): { at: number; description: Description } | undefined {
  const mark = Uint8Array.of(SECTION.end, SECTION.description);
  const buffer = Buffer.from(rest.buffer, rest.byteOffset, rest.byteLength);
  for (let at = buffer.indexOf(mark); at !== -1; at = buffer.indexOf(mark, at + 1)) {
    if (at + 6 >= buffer.byteLength || buffer.readUInt32BE(at + 2) !== buffer.byteLength - at - 6) continue;
    const description = parse(buffer.toString("utf8", at + 6));
    if (description !== undefined) return { at, description };
  }
  return undefined;
}

function parse(text: string): Description | undefined {
  try {
    return v.parse(descriptionSchema, JSON.parse(text));
  } catch {
    return undefined;
  }
}

/** Every device from its header to its footer, one behind the other: those of the description, and no others. */
function deviceSections(
  scanner: Scanner,
  bytes: Uint8Array,
  offset: number,
  devices: Description["devices"],
): DeviceSection[] {
  const sections: DeviceSection[] = [];
  let start = 0;
  for (const [index, device] of devices.entries()) {
    const head = headAt(bytes, start, device);
    if (head === undefined) {
      scanner.place = `section ${device.name}`;
      throw scanner.refusal(
        "ERR_BAD_MESSAGE",
        "it does not begin where the one before it ends",
        offset + start,
      );
    }
    const until = endOf(bytes, head, devices[index + 1]);
    if (until === undefined) {
      scanner.place = `section ${device.name}`;
      const next = devices[index + 1]?.name ?? "the end of the stream";
      throw scanner.refusal("ERR_BAD_MESSAGE", `it has no footer in front of ${next}`, offset + start);
    }
    const { id, version } = head;
    sections.push({ id, name: device.name, instance: device.instance_id, version, start, until });
    start = until;
  }
  if (start === bytes.byteLength) return sections;
  throw scanner.refusal("ERR_BAD_MESSAGE", "there are more devices than are described", offset + start);
}

interface Head {
  readonly id: number;
  readonly version: number;
  /** Where the body begins. */
  readonly body: number;
}

/** The header of a device's section, if there is one at `at`: 04 │ id │ name │ instance │ version. */
function headAt(bytes: Uint8Array, at: number, device: Description["devices"][number]): Head | undefined {
  const name = Buffer.from(device.name);
  const body = at + 14 + name.byteLength;
  if (body > bytes.byteLength || bytes[at] !== SECTION.full || bytes[at + 5] !== name.byteLength)
    return undefined;
  if (Buffer.compare(bytes.subarray(at + 6, at + 6 + name.byteLength), name) !== 0) return undefined;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const version = view.getUint32(body - 4);
  if (view.getUint32(body - 8) !== device.instance_id >>> 0) return undefined;
  if (device.version !== undefined && device.version !== version) return undefined;
  return { id: view.getUint32(at + 1), version, body };
}

/** Behind the footer that stands in front of the next device, or at the end. */
function endOf(
  bytes: Uint8Array,
  { id, body }: Head,
  next: Description["devices"][number] | undefined,
): number | undefined {
  const footer = Buffer.alloc(FOOTER_BYTES);
  footer.writeUInt8(SECTION.footer, 0);
  footer.writeUInt32BE(id, 1);
  const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  for (let at = buffer.indexOf(footer, body); at !== -1; at = buffer.indexOf(footer, at + 1)) {
    const until = at + FOOTER_BYTES;
    const isEnd = next === undefined ? until === bytes.byteLength : headAt(bytes, until, next) !== undefined;
    if (isEnd) return until;
  }
  return undefined;
}
