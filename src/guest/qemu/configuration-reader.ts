// CONFIGURATION: the machine's name, and subsections for what its capabilities and properties add. What is kept of it
// for a restore lacks the capabilities: those that we know only say how pages lie in a file, and a destination compares
// them with its own.
//
//   07 │ length, name │ 05 name, version, body │ 05 …

import { ByteWriter } from "./byte-writer.ts";
import type { Parsing, Scanner } from "./scanner.ts";
import {
  CAPABILITIES_KNOWN,
  CAPABILITIES_MAX,
  CONFIGURATION_PARTS,
  CONFIGURATION_PARTS_MAX,
  MACHINE_NAME_BYTES_MAX,
  PAGE_BITS,
  SECTION,
} from "./stream-format.ts";

interface Found {
  capabilities: string[];
  uuid?: string;
}

export function* readConfiguration(scanner: Scanner): Parsing {
  const { feed } = scanner;
  scanner.place = "section configuration";
  yield* scanner.need(5);
  const { offset } = feed;
  feed.drop(1);
  const nameBytes = feed.u32();
  if (nameBytes > MACHINE_NAME_BYTES_MAX) {
    throw scanner.refusal("ERR_BAD_MESSAGE", `the machine's name has ${nameBytes} bytes`, offset + 1);
  }
  yield* scanner.need(nameBytes);
  const machine = scanner.text(nameBytes, feed.offset);
  const copy = new ByteWriter().u8(SECTION.configuration).u32(nameBytes);
  copy.bytes(new TextEncoder().encode(machine));
  const found: Found = { capabilities: [] };
  yield* scanner.need(1);
  for (let count = 0; feed.peek() === SECTION.subsection; count++) {
    if (count === CONFIGURATION_PARTS_MAX) throw scanner.refusal("ERR_LIMIT", "it has too many subsections");
    yield* readPart(scanner, found, copy);
    yield* scanner.need(1);
  }
  const unknown = found.capabilities.find((name) => !CAPABILITIES_KNOWN.has(name));
  if (unknown !== undefined) {
    throw scanner.refusal("ERR_STREAM_FEATURE", `the capability ${unknown} is not supported`, offset);
  }
  yield { kind: "configuration", offset, configuration: { machine, ...found, bytes: copy.take() } };
}

function* readPart(scanner: Scanner, found: Found, copy: ByteWriter): Parsing {
  const { feed } = scanner;
  const { offset } = feed;
  feed.drop(1);
  const name = yield* scanner.name();
  yield* scanner.need(4);
  const version = feed.u32();
  const what = (CONFIGURATION_PARTS as Record<string, "page bits" | "capabilities" | "uuid" | undefined>)[
    name
  ];
  if (what === undefined || version !== 1) {
    const reason = `subsection ${JSON.stringify(name)} of version ${version} is not known`;
    throw scanner.refusal("ERR_STREAM_FEATURE", reason, offset);
  }
  const kept = () => copy.u8(SECTION.subsection).name(name).u32(version);
  switch (what) {
    case "page bits": {
      yield* scanner.need(4);
      const bits = feed.u32();
      if (bits !== PAGE_BITS)
        throw scanner.refusal("ERR_STREAM_FEATURE", `the guest's pages have ${bits} bits`, offset);
      kept().u32(bits);
      return;
    }
    case "capabilities":
      found.capabilities = yield* readCapabilities(scanner, offset);
      return;
    case "uuid": {
      yield* scanner.need(16);
      const bytes = feed.take(16).slice();
      found.uuid = uuidText(bytes);
      kept().bytes(bytes);
      return;
    }
  }
}

function* readCapabilities(scanner: Scanner, offset: number): Parsing<string[]> {
  yield* scanner.need(4);
  const count = scanner.feed.u32();
  if (count > CAPABILITIES_MAX)
    throw scanner.refusal("ERR_BAD_MESSAGE", `it has ${count} capabilities`, offset);
  const names: string[] = [];
  for (let index = 0; index < count; index++) names.push(yield* scanner.name());
  return names;
}

function uuidText(bytes: Uint8Array): string {
  const digits = [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  return digits.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
}
