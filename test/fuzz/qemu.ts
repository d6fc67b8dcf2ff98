// Damaged migration streams and return paths: each is read to its end or refused with an error of the catalogue, and
// the same way whatever pieces it comes in. First every byte in turn, then several at random.

import { MinorfaultError } from "../../src/base/errors.ts";
import { Random } from "../../src/base/random.ts";
import {
  encodeReturnMessage,
  type ReturnMessage,
  ReturnPathReader,
  type StreamEvent,
  StreamReader,
} from "../../src/guest/qemu/index.ts";
import { concat, PAGE, randomMachine, streamOf } from "../qemu/streams.ts";

export interface QemuFuzzResult {
  readonly count: number;
  /** By parser: how often it refused, and how often it read to the end all the same. */
  readonly outcomes: Readonly<Record<string, { refused: number; harmless: number }>>;
  readonly codes: Readonly<Record<string, number>>;
  /** What must never be. */
  readonly failures: readonly string[];
}

/** Codes that a parser may refuse with. */
const CODES: ReadonlySet<string> = new Set([
  "ERR_BAD_MESSAGE",
  "ERR_STREAM_FEATURE",
  "ERR_SOURCE_SHORT",
  "ERR_LIMIT",
]);
const VALUES = [0x00, 0x01, 0x04, 0x7e, 0x7f, 0x80, 0xff];

/** What came out: everything that was read, and the code of the error at its end. */
interface Outcome {
  readonly text: string;
  readonly code: string | undefined;
}

export function fuzzQemu(
  count: number,
  seed: number,
  onProgress: (done: number) => void = () => {},
): QemuFuzzResult {
  const random = new Random(seed);
  const outcomes: Record<string, { refused: number; harmless: number }> = {};
  const codes: Record<string, number> = {};
  const failures: string[] = [];
  const targets = [
    { name: "stream", parse: parseStream, bases: Array.from({ length: 12 }, () => randomStream(random)) },
    {
      name: "return path",
      parse: parseReturnPath,
      bases: Array.from({ length: 12 }, () => randomReturnPath(random)),
    },
  ];
  let done = 0;
  const attempt = (target: (typeof targets)[number], bytes: Uint8Array, what: () => string) => {
    outcomes[target.name] ??= { refused: 0, harmless: 0 };
    if (++done % 1000 === 0) onProgress(done);
    try {
      const whole = target.parse(bytes, () => bytes.byteLength);
      const piecesMax = 1 + random.below(bytes.byteLength);
      const pieces = target.parse(bytes, () => 1 + random.below(piecesMax));
      if (whole.text !== pieces.text || whole.code !== pieces.code) {
        failures.push(`${target.name}, ${what()}: in pieces it is ${pieces.code}, as a whole ${whole.code}`);
      }
      if (whole.code !== undefined) codes[whole.code] = (codes[whole.code] ?? 0) + 1;
      outcomes[target.name]![whole.code === undefined ? "harmless" : "refused"]++;
    } catch (error) {
      failures.push(`${target.name}, ${what()}: ${error instanceof Error ? error.stack : String(error)}`);
    }
  };
  for (const target of targets) {
    const base = target.bases[0]!;
    for (let at = 0; at < base.byteLength && done < count / 2; at++) {
      if (target.name === "stream" && isWithinPage(base, at)) continue;
      for (const value of VALUES) {
        const bytes = Uint8Array.from(base);
        bytes[at] = value;
        attempt(target, bytes, () => `byte ${at} of the first one is ${value}`);
      }
    }
  }
  while (done < count) {
    const target = targets[random.below(targets.length)]!;
    const state = done;
    attempt(
      target,
      mutate(random, target.bases[random.below(target.bases.length)]!),
      () => `number ${state}`,
    );
  }
  return { count: done, outcomes, codes, failures };
}

/** A small stream: one that damage meets often. */
function randomStream(random: Random): Uint8Array {
  const machine = randomMachine(random, 3);
  return streamOf(machine, random, { isLive: random.below(2) === 0, isBackground: random.below(3) === 0 });
}

function randomReturnPath(random: Random): Uint8Array {
  const messages: ReturnMessage[] = Array.from({ length: 3 + random.below(8) }, () => {
    switch (random.below(6)) {
      case 0:
        return { kind: "shut", code: random.below(2) };
      case 1:
        return { kind: "pong", value: 1 + random.below(4) };
      case 2:
        return {
          kind: "received",
          block: "pc.ram",
          bitmap: new Uint8Array(8 * (1 + random.below(4))).fill(0xf0),
        };
      case 3:
        return { kind: "resumed", value: 1 };
      default: {
        const block = random.below(2) === 0 ? "pc.ram" : undefined;
        return { kind: "request", block, start: random.below(1000) * PAGE, byteLength: PAGE };
      }
    }
  });
  return concat(...messages.map(encodeReturnMessage));
}

/** Whether the bytes around are those of a page: they are anything, so damage in them is none. */
function isWithinPage(bytes: Uint8Array, at: number): boolean {
  const here = bytes[at]!;
  return bytes.subarray(Math.max(0, at - 16), at + 16).every((byte) => byte === here) && at % 97 !== 0;
}

function mutate(random: Random, base: Uint8Array): Uint8Array {
  let bytes = Uint8Array.from(base);
  for (let times = 0; times <= random.below(3); times++) {
    const at = random.below(bytes.byteLength);
    const length = 1 + random.below(12);
    switch (random.below(7)) {
      case 0:
        bytes[at] = random.uint32();
        break;
      case 1:
        bytes[at]! ^= 1 << random.below(8);
        break;
      case 2:
        // A length that lies.
        bytes.set(Uint8Array.of(random.below(256), 0xff, 0xff, 0xff).subarray(0, bytes.byteLength - at), at);
        break;
      case 3:
        bytes = Uint8Array.from(concat(bytes.subarray(0, at), bytes.subarray(at + length)));
        break;
      case 4:
        bytes = Uint8Array.from(
          concat(bytes.subarray(0, at), bytes.subarray(at, at + length), bytes.subarray(at)),
        );
        break;
      case 5:
        bytes = bytes.slice(0, at);
        break;
      case 6: {
        const from = random.below(bytes.byteLength);
        bytes.copyWithin(at, from, from + length);
      }
    }
    if (bytes.byteLength === 0) return bytes;
  }
  return bytes;
}

function outcomeOf(read: (out: string[]) => void): Outcome {
  const out: string[] = [];
  try {
    read(out);
    return { text: out.join("\n"), code: undefined };
  } catch (error) {
    if (!(error instanceof MinorfaultError) || !CODES.has(error.code)) throw error;
    return { text: out.join("\n"), code: error.code };
  }
}

function parseStream(bytes: Uint8Array, pieceBytes: () => number): Outcome {
  return outcomeOf((out) => {
    const reader = new StreamReader();
    let blocks: readonly { readonly byteLength: number }[] = [];
    const take = () => {
      for (let event = reader.read(); event !== undefined; event = reader.read()) {
        if (event.kind === "blocks") blocks = event.blocks;
        checkEvent(event, blocks, bytes);
        out.push(`${event.kind} ${event.offset}`);
      }
    };
    for (let at = 0; at < bytes.byteLength; ) {
      const piece = bytes.subarray(at, at + pieceBytes());
      reader.push(piece);
      at += piece.byteLength;
      take();
    }
    reader.end();
    take();
  });
}

/** A page lies in its block, and its bytes are those of the stream. */
function checkEvent(
  event: StreamEvent,
  blocks: readonly { readonly byteLength: number }[],
  bytes: Uint8Array,
): void {
  if (event.kind !== "page" && event.kind !== "zero") return;
  const block = blocks[event.block];
  if (block === undefined || event.page < 0 || (event.page + 1) * PAGE > block.byteLength) {
    throw new Error(`Page ${event.page} of block ${event.block} is outside`);
  }
  if (
    event.kind === "page" &&
    Buffer.compare(event.bytes!, bytes.subarray(event.at, event.at + PAGE)) !== 0
  ) {
    throw new Error(`Page ${event.page} has other bytes than the stream`);
  }
}

function parseReturnPath(bytes: Uint8Array, pieceBytes: () => number): Outcome {
  return outcomeOf((out) => {
    const reader = new ReturnPathReader();
    for (let at = 0; at < bytes.byteLength; ) {
      const piece = bytes.subarray(at, at + pieceBytes());
      reader.push(piece);
      at += piece.byteLength;
      for (let message = reader.read(); message !== undefined; message = reader.read()) {
        out.push(JSON.stringify({ ...message, at: reader.offset }));
      }
    }
  });
}
