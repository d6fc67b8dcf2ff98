// Peers that mean harm, or are broken: what they send, and what they are told. Each is a process of its own with memory
// and a userfaultfd that are real, so that a server which does not look would do something with them.

import { setTimeout as delay } from "node:timers/promises";
import { ERRNO } from "../../src/abi/errno.ts";
import { PAGE_SIZE } from "../../src/abi/memory.ts";
import { MinorfaultError } from "../../src/base/errors.ts";
import { type GuestProcess, KernelSystem } from "../../src/guest/process/index.ts";
import { check, close, connect, memfd, receive, send, setNonBlocking } from "../../src/linux/index.ts";
import { openDescriptor } from "../../src/uffd/open.ts";
import { startVmm, type Vmm } from "./vmm.ts";

const DEADLINE_MS = 15_000;
const PAGES = 64;

/** A region as it is spelled; its values may be anything. */
type Fields = Readonly<Record<string, unknown>>;

export interface Piece {
  readonly bytes: string | Uint8Array;
  readonly descriptors?: readonly number[];
}

interface Means {
  /** A region that is right. */
  readonly good: Fields;
  readonly start: number;
  readonly byteLength: number;
  readonly uffd: number;
  /** A descriptor of the client's that is no userfaultfd. */
  other(): number;
  /** A userfaultfd that has not had its handshake. */
  raw(): number;
}

export interface Malice {
  readonly what: string;
  /** What it sends, piece by piece. Never-ending ones stop when the server has hung up. */
  pieces(means: Means): Iterable<Piece>;
  /** Hangs up behind the last piece. Default: stays and waits. */
  readonly hangsUp?: boolean;
  /** What it is told: the message of the error. */
  readonly refusal: RegExp;
  /** Its code; default ERR_BAD_HAND_OVER. */
  readonly code?: string;
}

/** Regions that are wrong, sent as they should be. */
function regions(
  what: string,
  refusal: RegExp,
  fields: (good: Fields, means: Means) => readonly unknown[],
): Malice {
  return message(what, refusal, (means) => JSON.stringify(fields(means.good, means)));
}

function message(what: string, refusal: RegExp, text: (means: Means) => string | Uint8Array): Malice {
  return { what, refusal, pieces: (means) => [{ bytes: text(means), descriptors: [means.uffd] }] };
}

const goodText = ({ good }: Means): string => JSON.stringify([good]);

/** A region whose number is spelled so that JSON can say it and no integer is. */
function spelled(what: string, refusal: RegExp, field: string, number: string): Malice {
  return message(what, refusal, ({ good }) =>
    JSON.stringify([{ ...good, [field]: "THIS" }]).replace('"THIS"', number),
  );
}

export const MALICES: readonly Malice[] = [
  regions("regions that overlap", /lie at the same addresses/, (good, { start, byteLength }) => [
    { ...good, size: byteLength / 2 },
    { ...good, base_host_virt_addr: start + PAGE_SIZE, size: PAGE_SIZE, offset: byteLength / 2 },
  ]),
  regions("the same region twice", /lie at the same addresses/, (good) => [good, good]),
  regions("two regions of the same content", /have the same content/, (good, { start }) => [
    { ...good, size: PAGE_SIZE },
    { ...good, base_host_virt_addr: start + PAGE_SIZE, size: PAGE_SIZE },
  ]),
  regions("a region that wraps around", /not an integer|ends beyond all addresses/, (good) => [
    { ...good, base_host_virt_addr: 2 ** 64 - PAGE_SIZE, size: 2 * PAGE_SIZE },
  ]),
  regions("a region in the kernel's half", /not an integer|ends beyond all addresses/, (good) => [
    { ...good, base_host_virt_addr: 2 ** 47 },
  ]),
  regions("a huge region", /ends beyond all addresses|wants .* bytes at offset/, (good) => [
    { ...good, size: 2 ** 46 },
  ]),
  regions("more than the image has", /wants .* bytes at offset/, (good, { byteLength }) => [
    { ...good, offset: byteLength },
  ]),
  regions("a negative offset", /not an integer/, (good) => [{ ...good, offset: -PAGE_SIZE }]),
  regions("a negative size", /not an integer/, (good) => [{ ...good, size: -PAGE_SIZE }]),
  regions("half a page", /not a multiple of its page size/, (good) => [{ ...good, size: PAGE_SIZE / 2 }]),
  regions("an address within a page", /not a multiple of its page size/, (good, { start }) => [
    { ...good, base_host_virt_addr: start + 8 },
  ]),
  spelled("a fraction", /not an integer/, "size", "4096.5"),
  spelled("more than any double", /not an integer|not a number/, "size", "1e999"),
  spelled("2^63", /not an integer/, "offset", "9223372036854775808"),
  spelled("not a number", /not JSON/, "size", "NaN"),
  spelled("a hexadecimal number", /not JSON/, "size", "0x1000"),
  regions("a number in quotes", /is not a number/, (good) => [{ ...good, size: "4096" }]),
  regions("nothing for a number", /is not a number/, (good) => [{ ...good, offset: null }]),
  regions("an empty region", /is 0/, (good) => [{ ...good, size: 0 }]),
  regions("address 0", /is 0/, (good) => [{ ...good, base_host_virt_addr: 0 }]),
  regions("pages of 8 KiB", /has 8192 bytes/, (good) => [{ ...good, page_size: 8192, page_size_kib: 8192 }]),
  regions("two page sizes", /differ/, (good) => [{ ...good, page_size_kib: 2 ** 21 }]),
  regions("no region", /has no region/, () => []),
  regions("a region without an address", /is not a number/, () => [{ size: PAGE_SIZE, offset: 0 }]),
  regions("fields from a prototype", /nested too deep/, () => [
    JSON.parse('{"__proto__":{"size":4096,"offset":0,"base_host_virt_addr":4096}}'),
  ]),
  regions("regions that are none", /is not an object/, () => [1, "two", null]),
  regions("1,000 regions", /has 1000 regions|more than/, (good) => new Array(1000).fill({ size: good.size })),
  regions("a guest_memfd", /guest_memfd/, (good) => [{ ...good, is_guest_memfd: true }]),
  message("no JSON", /not a JSON array/, () => "GET / HTTP/1.1\r\n\r\n"),
  message("an object", /not a JSON array/, ({ good }) => JSON.stringify(good)),
  message("brackets alone", /nested too deep/, () => "[".repeat(5000)),
  message("brackets that close and are no JSON", /not JSON/, () => "[,]"),
  message("no UTF-8", /not UTF-8/, () => Uint8Array.of(0x5b, 0x22, 0xff, 0xfe, 0x22, 0x5d)),
  message("a zero byte", /not a JSON array/, () => "\0[]"),
  message("two messages", /follows the message/, (means) => `${goodText(means)}${goodText(means)}`),
  {
    what: "two descriptors",
    refusal: /2 descriptors/,
    pieces: (means) => [{ bytes: goodText(means), descriptors: [means.uffd, means.uffd] }],
  },
  {
    what: "two descriptors, one after the other",
    refusal: /2 descriptors/,
    pieces: (means) => [
      { bytes: goodText(means).slice(0, 10), descriptors: [means.uffd] },
      { bytes: goodText(means).slice(10), descriptors: [means.uffd] },
    ],
  },
  {
    what: "as many descriptors as go",
    refusal: /253 descriptors|[Dd]escriptors were lost/,
    code: "any",
    pieces: (means) => [{ bytes: goodText(means), descriptors: new Array(253).fill(means.other()) }],
  },
  {
    what: "no descriptor, and the end",
    refusal: /hung up after \d+ bytes and 0 descriptors/,
    hangsUp: true,
    pieces: (means) => [{ bytes: goodText(means) }],
  },
  {
    what: "a descriptor of something else",
    refusal: /not a userfaultfd but/,
    pieces: (means) => [{ bytes: goodText(means), descriptors: [means.other()] }],
  },
  {
    what: "a userfaultfd without its handshake",
    refusal: /handshake/,
    pieces: (means) => [{ bytes: goodText(means), descriptors: [means.raw()] }],
  },
  {
    what: "half a message, and the end",
    refusal: /hung up after \d+ bytes and 1 descriptors/,
    hangsUp: true,
    pieces: (means) => [{ bytes: goodText(means).slice(0, 20), descriptors: [means.uffd] }],
  },
  {
    what: "nothing at all, and the end",
    refusal: /hung up after 0 bytes/,
    hangsUp: true,
    pieces: () => [],
  },
  {
    what: "a message that never ends",
    refusal: /has more than \d+ bytes/,
    *pieces(means) {
      yield { bytes: '[{"', descriptors: [means.uffd] };
      for (;;) yield { bytes: "x".repeat(8192) };
    },
  },
  {
    what: "white space that never ends",
    refusal: /has more than \d+ bytes/,
    *pieces(means) {
      yield { bytes: " ", descriptors: [means.uffd] };
      for (;;) yield { bytes: " ".repeat(8192) };
    },
  },
];

/** One that is only slow: its message comes byte by byte, its descriptor with the last one. It is to be served. */
export function* byteByByte(text: string, descriptor: number): Iterable<Piece> {
  for (const byte of text.slice(0, -1)) yield { bytes: byte };
  yield { bytes: text.slice(-1), descriptors: [descriptor] };
}

/** What a peer was told. */
export interface Answer {
  readonly text: string;
  readonly isHungUp: boolean;
}

/** A client with the means for any malice; many can be tried one after the other. */
export class MaliciousClient {
  readonly vmm: Vmm;
  readonly #socket: string;

  constructor(socket: string, system?: KernelSystem) {
    this.#socket = socket;
    this.vmm = startVmm({
      socket,
      regions: PAGES * PAGE_SIZE,
      handOver: false,
      cpu: "thread",
      ...(system !== undefined && { system }),
    });
  }

  get process(): GuestProcess {
    return this.vmm.process;
  }

  /** Tries one, and waits until the server has hung up, or for so long. */
  async attempt({ pieces, hangsUp = false }: Malice, deadlineMs = DEADLINE_MS): Promise<Answer> {
    const opened: number[] = [];
    try {
      const { answer } = await this.converse(pieces(this.#means(opened)), hangsUp, deadlineMs);
      return answer;
    } finally {
      for (const fd of opened) close(this.process, fd);
    }
  }

  /** Sends pieces on a new connection, and listens until the server hangs up, has said a line, or the time is over. */
  async converse(
    pieces: Iterable<Piece>,
    hangsUp = false,
    deadlineMs = DEADLINE_MS,
  ): Promise<{ readonly answer: Answer }> {
    const { process } = this;
    const socket = connect(process, this.#socket);
    setNonBlocking(process, socket, true);
    const until = performance.now() + deadlineMs;
    try {
      for (const piece of pieces) if (!(await sendPiece(process, socket, piece, until))) break;
      // What has been sent can be read still; nothing more comes.
      if (hangsUp) process.call("shutdown", socket, 1);
      return { answer: await listenUntil(process, socket, until) };
    } finally {
      close(process, socket);
    }
  }

  close(): void {
    this.vmm.close();
  }

  #means(opened: number[]): Means {
    const { vmm, process } = this;
    const note = (fd: number): number => {
      opened.push(fd);
      return fd;
    };
    return {
      good: (JSON.parse(vmm.message) as [Fields])[0],
      start: vmm.regions[0]!.address,
      byteLength: vmm.regions[0]!.byteLength,
      uffd: vmm.uffd,
      other: () => note(memfd(process, "no-userfaultfd", PAGE_SIZE)),
      raw: () => note(check(openDescriptor(process, "device", true), "open /dev/userfaultfd")),
    };
  }
}

/** False when nobody reads any more. */
async function sendPiece(
  process: GuestProcess,
  socket: number,
  piece: Piece,
  until: number,
): Promise<boolean> {
  let bytes = typeof piece.bytes === "string" ? new TextEncoder().encode(piece.bytes) : piece.bytes;
  let { descriptors = [] } = piece;
  while (bytes.byteLength > 0) {
    try {
      bytes = bytes.subarray(send(process, socket, bytes, descriptors));
      descriptors = [];
    } catch (error) {
      const errno = error instanceof MinorfaultError ? error.errno : undefined;
      if (errno === ERRNO.EPIPE || errno === ERRNO.ECONNRESET) return false;
      if (errno !== ERRNO.EAGAIN || performance.now() > until) throw error;
      await delay(1);
    }
  }
  return true;
}

async function listenUntil(process: GuestProcess, socket: number, until: number): Promise<Answer> {
  let text = "";
  for (;;) {
    const received = receiveNow(process, socket);
    if (received !== undefined && received.byteLength === 0) return { text, isHungUp: true };
    if (received !== undefined) text += new TextDecoder().decode(received);
    // Who is served is told so in one line, and the connection stays.
    else if (text.endsWith("\n") && !text.includes('"error"')) return { text, isHungUp: false };
    else if (performance.now() > until) return { text, isHungUp: false };
    else await delay(1);
  }
}

/** Empty when the other side has hung up, also when it did so with something of ours unread. */
function receiveNow(process: GuestProcess, socket: number): Uint8Array | undefined {
  try {
    return receive(process, socket, undefined, { now: true })?.bytes;
  } catch (error) {
    if (error instanceof MinorfaultError && error.errno === ERRNO.ECONNRESET) return new Uint8Array();
    throw error;
  }
}

/** LIMIT: connections of one process, well below what a process may have open. */
const CONNECTIONS_EACH = 900;
const SOCKET_NOW = 1 | 0x80000 | 0x800; // SOCK_STREAM, CLOEXEC, NONBLOCK
const AF_UNIX = 1;

export interface Flood {
  readonly connected: number;
  /** How often the door was full for a moment. */
  readonly waits: number;
  /** Texts that were heard, by how many heard them. */
  readonly heard: ReadonlyMap<string, number>;
  readonly hungUp: number;
  /** Hangs up everywhere. */
  close(): void;
}

/** Many connections at once that say nothing and stay. */
export async function flood(path: string, count: number, deadlineMs = DEADLINE_MS): Promise<Flood> {
  const system = new KernelSystem();
  const until = performance.now() + deadlineMs;
  const connections: { readonly process: GuestProcess; readonly socket: number }[] = [];
  let process = system.spawnProcess();
  let waits = 0;
  while (connections.length < count && performance.now() < until) {
    if (connections.length % CONNECTIONS_EACH === 0 && connections.length > 0) {
      process = connections.at(-1)!.process === process ? system.spawnProcess() : process;
    }
    const socket = connectNow(process, path);
    if (socket !== undefined) connections.push({ process, socket });
    else {
      waits++;
      await delay(1);
    }
  }
  const heard = new Map<string, number>();
  let hungUp = 0;
  for (const { process: peer, socket } of connections) {
    const said = receiveNow(peer, socket);
    if (said === undefined) continue;
    const text = new TextDecoder().decode(said);
    heard.set(text, (heard.get(text) ?? 0) + 1);
    if (text === "" || receiveNow(peer, socket)?.byteLength === 0) hungUp++;
  }
  return { connected: connections.length, waits, heard, hungUp, close: () => system.close() };
}

/** Undefined when so many wait at the door already that there is no room. */
function connectNow(process: GuestProcess, path: string): number | undefined {
  const socket = check(process.call("socket", AF_UNIX, SOCKET_NOW, 0), "socket");
  const { address, bytes, view } = process.scratch;
  const name = new TextEncoder().encode(`${path}\0`);
  view.setUint16(0, AF_UNIX, true);
  bytes.set(name, 2);
  const result = process.call("connect", socket, address, 2 + name.byteLength);
  if (result >= 0) return socket;
  close(process, socket);
  if (result === -ERRNO.EAGAIN) return undefined;
  check(result, "connect", { subject: path });
  return undefined;
}
