// Machines that exist only in tests, and their migration streams as QEMU would write them.

import type { Random } from "../../src/base/random.ts";
import { type RamBlock, type StreamEvent, StreamReader, StreamWriter } from "../../src/guest/qemu/index.ts";

export const PAGE = 4096;
export const SECTION_ID = 2;

export interface Device {
  readonly name: string;
  readonly instance: number;
  readonly version: number;
  readonly body: Uint8Array;
}

export interface TestMachine {
  readonly name: string;
  readonly blocks: readonly RamBlock[];
  /** By block: what its memory holds in the end. */
  readonly memory: readonly Uint8Array[];
  readonly devices: readonly Device[];
}

export function randomMachine(random: Random, pagesMax = 40): TestMachine {
  const names = ["pc.ram", "/rom@etc/acpi/tables", "pc.bios", "0000:00:02.0/virtio-net-pci.rom"];
  const blocks = names
    .slice(0, 1 + random.below(names.length))
    .map((name) => ({ name, byteLength: (1 + random.below(pagesMax)) * PAGE }));
  const memory = blocks.map(({ byteLength }) => {
    const bytes = new Uint8Array(byteLength);
    for (let page = 0; page < byteLength / PAGE; page++) {
      if (random.below(3) > 0) fillPage(random, bytes, page);
    }
    return bytes;
  });
  return { name: "pc-i440fx-7.2", blocks, memory, devices: randomDevices(random) };
}

export function fillPage(random: Random, memory: Uint8Array, page: number): void {
  memory.fill(1 + random.below(255), page * PAGE, (page + 1) * PAGE);
  new DataView(memory.buffer, memory.byteOffset).setUint32(page * PAGE, random.uint32());
}

/** Bodies that look like headers, footers and ends as often as may be. */
function randomDevices(random: Random): Device[] {
  const traps = [0x7e, 0, 4, 6, 0, 0, 0, 1, 3];
  return ["timer", "cpu_common", "cpu", "0000:00:01.3/piix4_pm", "globalstate"].map((name, index) => ({
    name,
    instance: index % 2,
    version: 1 + random.below(20),
    body: Uint8Array.from({ length: random.below(90) }, () => traps[random.below(traps.length)]!),
  }));
}

export function pageOf(memory: Uint8Array, page: number): Uint8Array {
  return memory.subarray(page * PAGE, (page + 1) * PAGE);
}

export function isZero(bytes: Uint8Array): boolean {
  return bytes.every((byte) => byte === 0);
}

export interface StreamShape {
  /** Live: pages come in rounds, with old contents first, and each at least once. */
  readonly isLive?: boolean;
  /** A snapshot in the background: in any order, and without a last part. */
  readonly isBackground?: boolean;
  readonly withDescription?: boolean;
  /** A part ends behind one of so many pages. */
  readonly partShare?: number;
  /** Bytes in front of the header. */
  readonly before?: Uint8Array;
}

/** The stream of a machine, as a whole. */
export function streamOf(machine: TestMachine, random: Random, shape: StreamShape = {}): Uint8Array {
  const { isLive = false, isBackground = false, withDescription = true, partShare = 12, before } = shape;
  const writer = new StreamWriter();
  if (before !== undefined) writer.verbatim(before);
  writer.header().configuration(machine.name);
  writer.sectionStart(SECTION_ID, "ram", 0, 4).blocks(machine.blocks).endOfRecords().footer(SECTION_ID);
  const order = machine.blocks.flatMap(({ byteLength }, block) =>
    Array.from({ length: byteLength / PAGE }, (_, page) => ({ block, page })),
  );
  if (isBackground) shuffle(random, order);
  for (let round = isLive ? 2 : 0; round >= 0; round--) {
    writer.sectionPart(SECTION_ID);
    for (const { block, page } of order) {
      if (round < 2 && isLive && random.below(3) > 0 && round > 0) continue;
      const old = new Uint8Array(PAGE);
      if (round > 0 && random.below(2) === 0) fillPage(random, old, 0);
      put(writer, machine.blocks[block]!, page, round > 0 ? old : pageOf(machine.memory[block]!, page));
      if (random.below(partShare) === 0) {
        writer.endOfRecords().footer(SECTION_ID).sectionPart(SECTION_ID);
      }
    }
    writer.endOfRecords().footer(SECTION_ID);
  }
  if (!isBackground) writer.sectionFinish(SECTION_ID).endOfRecords().footer(SECTION_ID);
  writer.verbatim(devicesOf(machine)).end();
  if (withDescription) writer.description(descriptionOf(machine));
  return writer.take();
}

function put(writer: StreamWriter, { name }: RamBlock, page: number, bytes: Uint8Array): void {
  if (isZero(bytes)) writer.zero(name, page);
  else writer.page(name, page, bytes);
}

export function devicesOf({ devices }: TestMachine): Uint8Array {
  const writer = new StreamWriter();
  for (const [index, { name, instance, version, body }] of devices.entries()) {
    writer
      .sectionFull(10 + index, name, instance, version)
      .verbatim(body)
      .footer(10 + index);
  }
  return writer.take();
}

export function descriptionOf({ devices }: TestMachine): Uint8Array {
  const list = devices.map(({ name, instance, version, body }) => ({
    name,
    instance_id: instance,
    vmsd_name: name,
    version,
    fields: [{ name: "all", type: "buffer", size: body.byteLength }],
  }));
  return Buffer.from(JSON.stringify({ page_size: PAGE, devices: list }));
}

export function shuffle<T>(random: Random, list: T[]): void {
  for (let index = list.length - 1; index > 0; index--) {
    const other = random.below(index + 1);
    [list[index], list[other]] = [list[other]!, list[index]!];
  }
}

/** Reads a whole stream in pieces of the given sizes; bytes of pages are copied. */
export function readAll(
  stream: Uint8Array,
  pieceBytes: () => number,
  reader = new StreamReader(),
): StreamEvent[] {
  const events: StreamEvent[] = [];
  const take = () => {
    for (let event = reader.read(); event !== undefined; event = reader.read()) {
      events.push(
        event.kind === "page" ? { ...event, bytes: event.bytes && new Uint8Array(event.bytes) } : event,
      );
    }
  };
  for (let at = 0; at < stream.byteLength; ) {
    const piece = stream.subarray(at, at + pieceBytes());
    reader.push(piece);
    take();
    at += piece.byteLength;
  }
  reader.end();
  take();
  return events;
}

/** Memory as the events of a stream leave it. */
export function memoryOf(events: readonly StreamEvent[]): Uint8Array[] {
  let memory: Uint8Array[] = [];
  for (const event of events) {
    if (event.kind === "blocks") memory = event.blocks.map(({ byteLength }) => new Uint8Array(byteLength));
    if (event.kind === "page") memory[event.block]!.set(event.bytes!, event.page * PAGE);
    if (event.kind === "zero") memory[event.block]!.fill(0, event.page * PAGE, (event.page + 1) * PAGE);
  }
  return memory;
}

export function concat(...parts: readonly Uint8Array[]): Uint8Array {
  return Buffer.concat(parts);
}
