// Commands of a stream: 08 │ number, length │ as many bytes, whose number the table knows for most.

import type { Parsing, Scanner } from "./scanner.ts";
import {
  COMMANDS,
  type Command,
  type CommandName,
  DEVICES_BYTES_MAX,
  type DiscardRange,
} from "./stream-format.ts";

const NAMES = new Map(
  Object.entries(COMMANDS).map(([name, { number }]) => [number as number, name as CommandName]),
);
const RANGE_BYTES = 16;

export function* readCommand(scanner: Scanner): Parsing<Command> {
  const { feed } = scanner;
  scanner.place = "a command";
  yield* scanner.need(5);
  const { offset } = feed;
  feed.drop(1);
  const number = feed.u16();
  const byteLength = feed.u16();
  const name = NAMES.get(number);
  if (name === undefined)
    throw scanner.refusal("ERR_STREAM_FEATURE", `its number ${number} is not known`, offset);
  scanner.place = `command ${name}`;
  const expected = COMMANDS[name].byteLength;
  if (expected !== undefined && expected !== byteLength) {
    throw scanner.refusal("ERR_BAD_MESSAGE", `it has ${byteLength} bytes instead of ${expected}`, offset);
  }
  yield* scanner.need(byteLength);
  const command = yield* readBody(scanner, name, offset, feed.offset + byteLength);
  yield { kind: "command", offset, command };
  return command;
}

function* readBody(scanner: Scanner, name: CommandName, offset: number, until: number): Parsing<Command> {
  const { feed } = scanner;
  switch (name) {
    case "ping":
      return { name, value: feed.u32() };
    case "postcopy-advise":
      return { name, pageSizes: feed.u64(), targetPageSize: feed.u64() };
    case "packaged":
      return { name, bytes: yield* readPackage(scanner, offset) };
    case "recv-bitmap": {
      const block = readName(scanner, offset, until);
      if (feed.offset === until) return { name, block };
      throw scanner.refusal("ERR_BAD_MESSAGE", "it does not end with its name", offset);
    }
    case "postcopy-discard":
      return { name, ...readDiscard(scanner, offset, until) };
    default:
      return { name };
  }
}

function* readPackage(scanner: Scanner, offset: number): Parsing<Uint8Array> {
  const byteLength = scanner.feed.u32();
  if (byteLength > DEVICES_BYTES_MAX) {
    throw scanner.refusal(
      "ERR_LIMIT",
      `a package has ${byteLength} bytes, at most ${DEVICES_BYTES_MAX}`,
      offset,
    );
  }
  yield* scanner.need(byteLength);
  return scanner.feed.take(byteLength).slice();
}

/** 0 │ name │ 0 │ ranges: start, length. */
function readDiscard(
  scanner: Scanner,
  offset: number,
  until: number,
): { block: string; ranges: readonly DiscardRange[] } {
  const { feed } = scanner;
  const wrong = () => scanner.refusal("ERR_BAD_MESSAGE", "its ranges do not fill it", offset);
  if (until - feed.offset < 3 + RANGE_BYTES) throw wrong();
  const version = feed.u8();
  if (version !== 0) throw scanner.refusal("ERR_STREAM_FEATURE", `it has version ${version}`, offset);
  const block = readName(scanner, offset, until);
  if (until - feed.offset < 1 + RANGE_BYTES || feed.u8() !== 0 || (until - feed.offset) % RANGE_BYTES !== 0) {
    throw wrong();
  }
  const ranges: DiscardRange[] = [];
  while (feed.offset < until) ranges.push({ start: feed.u64(), byteLength: feed.u64() });
  return { block, ranges };
}

/** A name within a command, all of whose bytes have come. */
function readName(scanner: Scanner, offset: number, until: number): string {
  const { feed } = scanner;
  const left = until - feed.offset - 1;
  const byteLength = left < 0 ? 0 : feed.u8();
  if (byteLength > left || byteLength === 0) {
    throw scanner.refusal("ERR_BAD_MESSAGE", "the name in it is longer than it is", offset);
  }
  return scanner.text(byteLength, offset);
}
