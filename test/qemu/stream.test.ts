// The reader and the writer of migration streams: against each other, against a stream of a real QEMU, and against
// streams that are cut, that lie, or that use what is not known.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { gunzipSync } from "node:zlib";
import { MinorfaultError } from "../../src/base/errors.ts";
import { Random } from "../../src/base/random.ts";
import { type Command, StreamReader, StreamWriter } from "../../src/guest/qemu/index.ts";
import { seedOf } from "../image/content.ts";
import {
  concat,
  descriptionOf,
  devicesOf,
  memoryOf,
  PAGE,
  randomMachine,
  readAll,
  SECTION_ID,
  type StreamShape,
  streamOf,
} from "./streams.ts";

const RECORDED = new URL("../../../test/qemu/fixtures/microvm.qemu.gz", import.meta.url);

function error(code: string, ...words: readonly string[]) {
  return (thrown: unknown) => {
    assert.ok(thrown instanceof MinorfaultError, String(thrown));
    assert.equal(thrown.code, code, thrown.message);
    for (const word of words) assert.ok(thrown.message.includes(word), `${thrown.message} (${word})`);
    return true;
  };
}

test("a stream of QEMU 7.2 is read to its last byte, in pieces of any size", () => {
  const stream = gunzipSync(readFileSync(RECORDED));
  const whole = readAll(stream, () => stream.byteLength);
  const [configuration] = whole.filter(({ kind }) => kind === "configuration");
  assert.equal(configuration?.kind === "configuration" && configuration.configuration.machine, "microvm");
  const blocks = whole.find(({ kind }) => kind === "blocks");
  assert.deepEqual(
    blocks?.kind === "blocks" && blocks.blocks.map(({ name, byteLength }) => `${name} ${byteLength}`),
    ["microvm.ram 2097152", "pc.bios 65536"],
  );
  const devices = whole.find(({ kind }) => kind === "devices");
  assert.ok(devices?.kind === "devices");
  assert.deepEqual(
    [devices.sections[0]?.name, devices.sections.at(-1)?.name],
    ["timer", "globalstate"],
    "the devices are those of the description",
  );
  assert.equal(devices.sections.at(-1)?.until, devices.bytes.byteLength);
  for (const pieceBytes of [1, 7, 4096, 65536]) {
    assert.deepEqual(
      readAll(stream, () => pieceBytes),
      whole,
      `pieces of ${pieceBytes}`,
    );
  }
});

test("what is written is read again: any machine, any kind of save, any pieces", (context) => {
  const seed = seedOf();
  context.diagnostic(`SEED=${seed}`);
  const random = new Random(seed);
  for (let round = 0; round < 150; round++) {
    const machine = randomMachine(random);
    const shape: StreamShape = { isLive: random.below(2) === 0, isBackground: random.below(3) === 0 };
    const stream = streamOf(machine, random, shape);
    const piecesMax = 1 + random.below(3 * PAGE);
    const events = readAll(stream, () => 1 + random.below(piecesMax));
    assert.deepEqual(memoryOf(events), machine.memory);
    const devices = events.find(({ kind }) => kind === "devices");
    assert.ok(devices?.kind === "devices");
    assert.deepEqual(Buffer.from(devices.bytes), Buffer.from(devicesOf(machine)));
    assert.deepEqual(
      devices.sections.map(({ name, version }) => ({ name, version })),
      machine.devices.map(({ name, version }) => ({ name, version })),
    );
  }
});

test("offsets of pages are those of the stream, and bytes that nobody wants are left out", () => {
  const random = new Random(5);
  const machine = randomMachine(random);
  const stream = streamOf(machine, random, { isLive: true });
  const events = readAll(stream, () => 1000, new StreamReader({ payload: false }));
  const whole = readAll(stream, () => 1000);
  assert.deepEqual(
    events.map((event) => ({ ...event, bytes: undefined })),
    whole.map((event) => ({ ...event, bytes: undefined })),
  );
  for (const event of whole) {
    if (event.kind !== "page") continue;
    assert.deepEqual(Buffer.from(event.bytes!), Buffer.from(stream.subarray(event.at, event.at + PAGE)));
  }
});

test("a stream that is cut at any byte is refused, with the offset at which it ends", () => {
  const random = new Random(11);
  const machine = randomMachine(random, 2);
  const stream = streamOf(machine, random, { isLive: true });
  for (let length = 0; length < stream.byteLength; length++) {
    assert.throws(
      () => readAll(stream.subarray(0, length), () => 997),
      error("ERR_SOURCE_SHORT", `ends at offset ${length} `),
    );
  }
  readAll(stream, () => 997);
});

test("a stream without a description is believed only where somebody knows that it is whole", () => {
  const random = new Random(3);
  const machine = randomMachine(random);
  const stream = streamOf(machine, random, { withDescription: false });
  assert.throws(() => readAll(stream, () => 1000), error("ERR_SOURCE_SHORT", "the device state"));
  const events = readAll(stream, () => 1000, new StreamReader({ isWhole: true }));
  assert.deepEqual(memoryOf(events), machine.memory);
  assert.equal(events.at(-1)?.kind, "end");
});

test("every command is read as it was written, and one with another length is refused", () => {
  const commands: Command[] = [
    { name: "open-return-path" },
    { name: "ping", value: 0xdeadbeef },
    { name: "postcopy-advise", pageSizes: 0x201000, targetPageSize: 4096 },
    { name: "postcopy-listen" },
    { name: "postcopy-run" },
    {
      name: "postcopy-discard",
      block: "pc.ram",
      ranges: [
        { start: 0, byteLength: 2 ** 33 },
        { start: 2 ** 33 + PAGE, byteLength: PAGE },
      ],
    },
    { name: "enable-colo" },
    { name: "postcopy-resume" },
    { name: "recv-bitmap", block: "/rom@etc/acpi/tables" },
    { name: "switchover-start" },
    { name: "packaged", bytes: Uint8Array.of(1, 2, 3) },
  ];
  const resumed = { blocks: [{ name: "pc.ram", byteLength: PAGE }], sectionId: SECTION_ID };
  for (const command of commands) {
    const bytes = new StreamWriter().command(command).take();
    const reader = new StreamReader({ resumed });
    reader.push(bytes);
    const event = reader.read();
    assert.deepEqual(event?.kind === "command" && event.command, command);
    // The length is at byte 3 and 4; one that does not fit is found out, or waits for what it says.
    const longer = Uint8Array.from(bytes);
    longer[4]!++;
    const lying = new StreamReader({ resumed });
    lying.push(concat(longer, new Uint8Array(3)));
    try {
      const read = lying.read();
      assert.ok(read === undefined, `${command.name} of another length is read`);
    } catch (thrown) {
      error("ERR_BAD_MESSAGE", `command ${command.name}`)(thrown);
    }
  }
});

test("a libvirt save is read behind its header, unless libvirt compressed it or did not finish it", () => {
  const random = new Random(8);
  const machine = randomMachine(random);
  const xml = Buffer.from("<domain type='kvm'/>\0");
  const header = (magic: string, format: number, version = 2): Uint8Array => {
    const bytes = Buffer.alloc(92);
    bytes.write(magic, 0, "latin1");
    bytes.writeUInt32LE(version, 16);
    bytes.writeUInt32LE(xml.byteLength, 20);
    bytes.writeUInt32LE(1, 24);
    bytes.writeUInt32LE(format, 28);
    return concat(bytes, xml);
  };
  const stream = streamOf(machine, random, { before: header("LibvirtQemudSave", 0) });
  const events = readAll(stream, () => 50);
  assert.deepEqual(events[0], { kind: "libvirt", offset: 0, xmlBytes: xml.byteLength });
  assert.deepEqual(memoryOf(events), machine.memory);
  const refused = (before: Uint8Array, ...words: string[]) =>
    assert.throws(
      () => readAll(streamOf(machine, random, { before }), () => 50),
      (thrown: unknown) => {
        assert.ok(thrown instanceof MinorfaultError && thrown.kind === "protocol");
        for (const word of words) assert.ok(thrown.message.includes(word), thrown.message);
        return true;
      },
    );
  refused(header("LibvirtQemudSave", 1), "gzip");
  refused(header("LibvirtQemudSave", 3), "xz");
  refused(header("LibvirtQemudPart", 0), "did not finish");
  refused(header("LibvirtQemudSave", 0, 9), "version");
  refused(header("LibvirtSomething", 0), "libvirt");
});

test("blocks of huge pages are told from those without, with nothing to say which they are", () => {
  const random = new Random(9);
  const base = randomMachine(random);
  const huge = [
    { name: "a", byteLength: 4 * 2 ** 20, pageSize: 2 ** 21 },
    { name: "b", byteLength: PAGE },
    { name: "c", byteLength: 2 ** 30, pageSize: 2 ** 30 },
  ];
  for (const blocks of [huge, huge.slice(0, 2), huge.slice(1), [...huge].reverse(), huge.slice(1, 2)]) {
    const writer = new StreamWriter().header().configuration(base.name);
    writer.sectionStart(SECTION_ID, "ram", 0, 4).blocks(blocks).endOfRecords().footer(SECTION_ID);
    writer.sectionPart(SECTION_ID).zero("b", 0).endOfRecords().footer(SECTION_ID);
    writer.sectionFinish(SECTION_ID).endOfRecords().footer(SECTION_ID);
    writer.verbatim(devicesOf(base)).end().description(descriptionOf(base));
    const events = readAll(writer.take(), () => 3);
    const listed = events.find(({ kind }) => kind === "blocks");
    assert.deepEqual(listed?.kind === "blocks" && listed.blocks, blocks);
  }
});

/** A stream up to RAM, and what follows. */
function begun(): StreamWriter {
  return new StreamWriter()
    .header()
    .configuration("pc")
    .sectionStart(SECTION_ID, "ram", 0, 4)
    .blocks([{ name: "pc.ram", byteLength: 4 * PAGE }])
    .endOfRecords()
    .footer(SECTION_ID);
}

function word(high: number, low: number): Uint8Array {
  const bytes = Buffer.alloc(8);
  bytes.writeUInt32BE(high, 0);
  bytes.writeUInt32BE(low, 4);
  return bytes;
}

/** Streams that must not be believed, what they are refused with, and words that must be in the message. */
const REFUSALS: readonly [string, () => Uint8Array, string, ...string[]][] = [
  ["no magic", () => Buffer.from("QEVX\0\0\0\x03"), "ERR_BAD_MESSAGE", "offset 0"],
  [
    "another version",
    () => concat(Buffer.from("QEVM"), word(4, 0)),
    "ERR_STREAM_FEATURE",
    "version 4",
    "offset 4",
  ],
  [
    "a live section that is not known",
    () => begun().sectionStart(7, "dirty-bitmap", 0, 1).take(),
    "ERR_STREAM_FEATURE",
    "dirty-bitmap",
  ],
  [
    "RAM of another version",
    () => new StreamWriter().header().sectionStart(2, "ram", 0, 5).take(),
    "ERR_STREAM_FEATURE",
    "version 5",
  ],
  ["RAM twice", () => begun().sectionStart(3, "ram", 0, 4).take(), "ERR_BAD_MESSAGE", "second time"],
  ["a part of nothing", () => begun().sectionPart(9).take(), "ERR_BAD_MESSAGE", "section 9"],
  [
    "a part behind the last one",
    () => begun().sectionFinish(2).endOfRecords().footer(2).sectionPart(2).take(),
    "ERR_BAD_MESSAGE",
    "not open",
  ],
  [
    "another footer",
    () => begun().sectionPart(2).endOfRecords().footer(3).take(),
    "ERR_BAD_MESSAGE",
    "section ram (part)",
    "footer",
  ],
  [
    "a device before RAM",
    () => begun().sectionFull(5, "virtio-mem-early", 0, 1).take(),
    "ERR_STREAM_FEATURE",
    "virtio-mem-early",
  ],
  ["an end before RAM", () => begun().end().take(), "ERR_BAD_MESSAGE", "before all RAM"],
  [
    "a type that is not known",
    () => begun().verbatim(Uint8Array.of(0x33)).take(),
    "ERR_STREAM_FEATURE",
    "0x33",
  ],
  [
    "a command that is not known",
    () =>
      begun()
        .verbatim(Uint8Array.of(8, 0, 99, 0, 0))
        .take(),
    "ERR_STREAM_FEATURE",
    "number 99",
  ],
  ...(
    [
      ["xbzrle", 0x40],
      ["rdma", 0x80],
      ["compress", 0x100],
      ["multifd", 0x200],
    ] as const
  ).map(
    ([capability, flag]) =>
      [
        `pages by ${capability}`,
        () => begun().sectionPart(2).verbatim(word(0, flag)).take(),
        "ERR_STREAM_FEATURE",
        capability,
        "section ram (part)",
      ] as [string, () => Uint8Array, string, ...string[]],
  ),
  [
    "no flags",
    () => begun().sectionPart(2).verbatim(word(0, PAGE)).take(),
    "ERR_STREAM_FEATURE",
    "flags 0x0",
  ],
  [
    "two flags",
    () => begun().sectionPart(2).verbatim(word(0, 0x0a)).take(),
    "ERR_STREAM_FEATURE",
    "flags 0xa",
  ],
  [
    "a page beyond its block",
    () => begun().sectionPart(2).zero("pc.ram", 4).take(),
    "ERR_BAD_MESSAGE",
    "pc.ram",
    "16384",
  ],
  [
    "a page far beyond its block",
    () =>
      begun()
        .sectionPart(2)
        .zero("pc.ram", 2 ** 40)
        .take(),
    "ERR_BAD_MESSAGE",
    "pc.ram",
  ],
  ["a page of no block", () => begun().sectionPart(2).zero("vga", 0).take(), "ERR_BAD_MESSAGE", "vga"],
  [
    "a first page without a block",
    () => begun().sectionPart(2).verbatim(word(0, 0x28)).take(),
    "ERR_BAD_MESSAGE",
    "names no block",
  ],
  [
    "a page filled with something else",
    () => begun().sectionPart(2).verbatim(word(0, 2)).verbatim(Buffer.from("\x06pc.ram\x07")).take(),
    "ERR_BAD_MESSAGE",
    "byte 7",
  ],
  [
    "blocks in a part",
    () =>
      begun()
        .sectionPart(2)
        .blocks([{ name: "more", byteLength: PAGE }])
        .take(),
    "ERR_BAD_MESSAGE",
    "second time",
  ],
  [
    "a block of half a page",
    () =>
      new StreamWriter()
        .header()
        .sectionStart(2, "ram", 0, 4)
        .verbatim(word(0, PAGE + 4))
        .verbatim(concat(Buffer.from("\x01a"), word(0, 2048)))
        .take(),
    "ERR_BAD_MESSAGE",
    "2048",
  ],
  [
    "a block larger than all",
    () =>
      new StreamWriter()
        .header()
        .sectionStart(2, "ram", 0, 4)
        .verbatim(word(0, PAGE + 4))
        .verbatim(concat(Buffer.from("\x01a"), word(0, 2 * PAGE)))
        .take(),
    "ERR_BAD_MESSAGE",
    "8192",
  ],
  [
    "RAM of 16 EiB",
    () =>
      new StreamWriter().header().sectionStart(2, "ram", 0, 4).verbatim(word(0xffffffff, 0xfffff004)).take(),
    "ERR_BAD_MESSAGE",
    "more than is possible",
  ],
  [
    "two blocks of one name",
    () =>
      new StreamWriter()
        .header()
        .sectionStart(2, "ram", 0, 4)
        .blocks([
          { name: "a", byteLength: PAGE },
          { name: "a", byteLength: PAGE },
        ])
        .take(),
    "ERR_BAD_MESSAGE",
    '"a"',
  ],
  [
    "a machine's name without end",
    () =>
      new StreamWriter()
        .header()
        .verbatim(Uint8Array.of(7, 0xff, 0, 0, 0))
        .take(),
    "ERR_BAD_MESSAGE",
    "section configuration",
  ],
  [
    "a part of the configuration that is not known",
    () =>
      new StreamWriter().header().configuration("pc").verbatim(Buffer.from("\x05\x03new\0\0\0\x01")).take(),
    "ERR_STREAM_FEATURE",
    '"new"',
  ],
  [
    "pages of 64 KiB",
    () =>
      new StreamWriter()
        .header()
        .configuration("virt")
        .verbatim(Buffer.from("\x05\x1econfiguration/target-page-bits\0\0\0\x01\0\0\0\x10"))
        .take(),
    "ERR_STREAM_FEATURE",
    "16 bits",
  ],
  [
    "memory that was left out",
    () =>
      new StreamWriter()
        .header()
        .configuration("pc")
        .verbatim(Buffer.from("\x05\x1aconfiguration/capabilities\0\0\0\x01\0\0\0\x01\x0fx-ignore-shared"))
        .sectionStart(2, "ram", 0, 4)
        .take(),
    "ERR_STREAM_FEATURE",
    "x-ignore-shared",
  ],
  [
    "a name that is no text",
    () =>
      begun()
        .sectionPart(2)
        .verbatim(word(0, 2))
        .verbatim(Uint8Array.of(2, 0xff, 0xfe))
        .take(),
    "ERR_BAD_MESSAGE",
    "UTF-8",
  ],
];

for (const [what, stream, code, ...words] of REFUSALS) {
  test(`refused by name and offset: ${what}`, () => {
    const bytes = stream();
    for (const pieceBytes of [1, 64, bytes.byteLength]) {
      assert.throws(() => readAll(bytes, () => pieceBytes), error(code, "offset", ...words));
    }
  });
}

test("a device that is not where the description has it is refused by its name", () => {
  const random = new Random(21);
  const machine = randomMachine(random);
  const wrong = (change: (devices: TestDevices) => TestDevices, ...words: string[]) => {
    const other = { ...machine, devices: change([...machine.devices]) };
    const writer = begun().sectionFinish(2).endOfRecords().footer(2);
    writer.verbatim(devicesOf(machine)).end().description(descriptionOf(other));
    assert.throws(() => readAll(writer.take(), () => 100), error("ERR_BAD_MESSAGE", "offset", ...words));
  };
  wrong((devices) => devices.slice(1), "section cpu_common");
  wrong((devices) => devices.slice(0, -1), "section 0000:00:01.3/piix4_pm", "no footer");
  wrong((devices) => [...devices, { ...devices[0]!, name: "another" }], "section globalstate", "another");
  wrong((devices) => devices.with(1, { ...devices[1]!, version: 99 }), "section timer", "no footer");
});

type TestDevices = ReturnType<typeof randomMachine>["devices"][number][];
