// Writes a migration stream: the same things that the reader reports, as bytes.

import { ByteWriter } from "./byte-writer.ts";
import {
  COMMANDS,
  type Command,
  MAGIC,
  PAGE_BYTES,
  RAM,
  type RamBlock,
  SECTION,
  VERSION,
} from "./stream-format.ts";

export class StreamWriter {
  readonly #out = new ByteWriter(1024);
  /** The block of the last record of RAM. */
  #last: string | undefined;

  get byteLength(): number {
    return this.#out.byteLength;
  }

  /** What has been written since the last time. */
  take(): Uint8Array {
    return this.#out.take();
  }

  header(): this {
    this.#out.u32(MAGIC).u32(VERSION);
    return this;
  }

  /** Bytes that are a part of a stream already: a configuration, the state of devices. */
  verbatim(bytes: Uint8Array): this {
    this.#out.bytes(bytes);
    return this;
  }

  configuration(machine: string): this {
    const name = new TextEncoder().encode(machine);
    this.#out.u8(SECTION.configuration).u32(name.byteLength).bytes(name);
    return this;
  }

  sectionStart(id: number, name: string, instance: number, version: number): this {
    return this.#head(SECTION.start, id, name, instance, version);
  }

  sectionFull(id: number, name: string, instance: number, version: number): this {
    return this.#head(SECTION.full, id, name, instance, version);
  }

  sectionPart(id: number): this {
    return this.#part(SECTION.part, id);
  }

  sectionFinish(id: number): this {
    return this.#part(SECTION.finish, id);
  }

  footer(id: number): this {
    this.#out.u8(SECTION.footer).u32(id);
    return this;
  }

  /** The list of blocks; page sizes as they are given, which only a post-copy stream has. */
  blocks(blocks: readonly RamBlock[]): this {
    const total = blocks.reduce((sum, { byteLength }) => sum + byteLength, 0);
    this.#out.u64(total + RAM.sizes);
    for (const { name, byteLength, pageSize } of blocks) {
      this.#out.name(name).u64(byteLength);
      if (pageSize !== undefined) this.#out.u64(pageSize);
    }
    return this;
  }

  page(block: string, page: number, bytes: Uint8Array): this {
    this.#record(block, page, RAM.page);
    this.#out.bytes(bytes);
    return this;
  }

  zero(block: string, page: number): this {
    this.#record(block, page, RAM.zero);
    this.#out.u8(0);
    return this;
  }

  /** The end of a part's records. The next part names its first block again. */
  endOfRecords(): this {
    this.#out.u64(RAM.end);
    this.#last = undefined;
    return this;
  }

  command(command: Command): this {
    const { number } = COMMANDS[command.name];
    const body = commandBody(command);
    this.#out.u8(SECTION.command).u16(number).u16(body.byteLength).bytes(body);
    if (command.name === "packaged") this.#out.bytes(command.bytes);
    return this;
  }

  end(): this {
    this.#out.u8(SECTION.end);
    return this;
  }

  description(json: Uint8Array): this {
    this.#out.u8(SECTION.description).u32(json.byteLength).bytes(json);
    return this;
  }

  #head(type: number, id: number, name: string, instance: number, version: number): this {
    this.#out.u8(type).u32(id).name(name).u32(instance).u32(version);
    return this;
  }

  #part(type: number, id: number): this {
    this.#out.u8(type).u32(id);
    return this;
  }

  #record(block: string, page: number, flags: number): void {
    const isSame = block === this.#last;
    this.#out.u64(page * PAGE_BYTES + flags + (isSame ? RAM.sameBlock : 0));
    if (!isSame) this.#out.name(block);
    this.#last = block;
  }
}

function commandBody(command: Command): Uint8Array {
  const out = new ByteWriter(64);
  switch (command.name) {
    case "ping":
      return out.u32(command.value).take();
    case "postcopy-advise":
      return out.u64(command.pageSizes).u64(command.targetPageSize).take();
    case "packaged":
      return out.u32(command.bytes.byteLength).take();
    case "recv-bitmap":
      return out.name(command.block).take();
    case "postcopy-discard":
      out.u8(0).name(command.block).u8(0);
      for (const { start, byteLength } of command.ranges) out.u64(start).u64(byteLength);
      return out.take();
    default:
      return out.take();
  }
}
