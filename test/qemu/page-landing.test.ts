// Pages that are read from the socket straight to where somebody waits for them: guessed right or wrong, and in whatever
// pieces they come, all of them are where they belong.

import assert from "node:assert/strict";
import { once } from "node:events";
import { Socket } from "node:net";
import { test } from "node:test";
import { Random } from "../../src/base/random.ts";
import { IncomingStream } from "../../src/guest/qemu/incoming-stream.ts";
import { StreamReader } from "../../src/guest/qemu/index.ts";
import { PageLanding } from "../../src/guest/qemu/page-landing.ts";
import { RamSpool } from "../../src/guest/qemu/ram-spool.ts";
import { local, socketPair } from "../../src/linux/index.ts";
import { seedOf } from "../image/content.ts";
import { fillPage, PAGE, pageOf, randomMachine, streamOf, type TestMachine } from "./streams.ts";

const CHUNK_PAGES = 16;
const CHUNKS_A_READ = 4;

/** Most pages have content, so that many come one after the other. */
function fullMachine(random: Random): TestMachine {
  const machine = randomMachine(random, 400);
  for (const memory of machine.memory) {
    for (let page = 0; page < memory.byteLength / PAGE; page++) {
      if (random.below(40) > 0) fillPage(random, memory, page);
    }
  }
  return machine;
}

/** Receives a stream into memory that is shared with threads, as a build asks for it. */
class Receiver {
  readonly #reader = new StreamReader({
    sink: {
      page: (block, page, bytes) => this.#spool!.page(block, page, bytes),
      zero: (block, page) => this.#spool!.zero(block, page),
    },
  });
  readonly landing = new PageLanding(
    this.#reader,
    () => this.#read(),
    () => this.#spool,
  );
  readonly memory: Uint8Array[] = [];
  #spool: RamSpool | undefined;
  readonly #reads: Promise<void>[] = [];

  async run(incoming: IncomingStream): Promise<void> {
    for await (const piece of incoming.pieces(undefined, this.landing)) {
      this.#reader.push(piece);
      this.#read();
      this.#reader.keep();
    }
    this.#reader.end();
    this.#read();
    this.#spool!.finish();
    await Promise.all(this.#reads);
  }

  /** Pages of a block that came again when they had been given. */
  revised(block: number): Set<number> {
    const pages = new Set<number>();
    for (const { start, until } of this.#spool!.revised(block)) {
      for (let at = start; at < until; at += PAGE) pages.add(at / PAGE);
    }
    return pages;
  }

  close(): void {
    this.landing.close();
    this.#spool?.close();
  }

  #read(): void {
    const reader = this.#reader;
    for (let event = reader.read(); event !== undefined; event = reader.read()) {
      if (event.kind === "page") this.#spool!.page(event.block, event.page, event.bytes!);
      else if (event.kind === "zero") this.#spool!.zero(event.block, event.page);
      else if (event.kind === "blocks") {
        this.#spool = new RamSpool(event.blocks);
        this.#reads.push(...this.#spool.sources.map((_, block) => this.#ask(block)));
      }
    }
  }

  /** Some chunks at a time, so that some pages come before they are waited for, and go through the file. */
  async #ask(block: number): Promise<void> {
    const source = this.#spool!.sources[block]!;
    const bytes = new Uint8Array(new SharedArrayBuffer(source.byteLength));
    this.memory[block] = bytes;
    const step = CHUNKS_A_READ * CHUNK_PAGES * PAGE;
    for (let at = 0; at < bytes.byteLength; at += step) {
      const target = bytes.subarray(at, at + step);
      const zeros = new Uint8Array(CHUNKS_A_READ);
      await source.readSparse!(at, target, CHUNK_PAGES * PAGE, zeros);
      for (const [chunk, zero] of zeros.entries()) {
        if (zero === 1) target.fill(0, chunk * CHUNK_PAGES * PAGE, (chunk + 1) * CHUNK_PAGES * PAGE);
      }
    }
  }
}

/** Sends in pieces; now and then the reader has seen all of them before the next one comes. */
async function send(socket: Socket, stream: Uint8Array, random: Random): Promise<void> {
  const pieceMax = 1 << (10 + random.below(10));
  for (let at = 0; at < stream.byteLength; ) {
    const piece = stream.subarray(at, at + 1 + random.below(pieceMax));
    at += piece.byteLength;
    if (!socket.write(piece)) await once(socket, "drain");
    if (random.below(3) === 0) await new Promise<void>((resolve) => setImmediate(resolve));
  }
  socket.end();
}

test("pages that are read to where they are waited for are right, whatever comes between them", async (context) => {
  const seed = seedOf();
  context.diagnostic(`SEED=${seed}`);
  const random = new Random(seed);
  let landed = 0;
  let all = 0;
  for (let round = 0; round < 20; round++) {
    const machine = fullMachine(random);
    const stream = streamOf(machine, random, {
      isLive: random.below(3) === 0,
      isBackground: random.below(5) === 0,
      partShare: random.below(2) === 0 ? 12 : 500,
    });
    const [ours, theirs] = socketPair(local);
    const incoming = new IncomingStream(ours);
    const receiver = new Receiver();
    try {
      await Promise.all([receiver.run(incoming), send(new Socket({ fd: theirs }), stream, random)]);
      for (const [block, memory] of machine.memory.entries()) {
        const revised = receiver.revised(block);
        for (let page = 0; page < memory.byteLength / PAGE; page++) {
          if (revised.has(page)) continue;
          const isRight = Buffer.compare(pageOf(receiver.memory[block]!, page), pageOf(memory, page)) === 0;
          assert.ok(isRight, `round ${round}: page ${page} of block ${block}`);
        }
        all += memory.byteLength / PAGE;
      }
      landed += receiver.landing.pages;
    } finally {
      receiver.close();
      incoming.close();
    }
  }
  assert.ok(landed > all / 40, `${landed} of ${all} pages went straight where they belong`);
});
