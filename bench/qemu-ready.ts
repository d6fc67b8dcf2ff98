// The whole stream of a post-copy migration, made beforehand and kept in memory: what QEMU itself needs to take it is the
// floor of every source of such a migration. Nothing is read, verified or decided while it is sent.

import { once } from "node:events";
import {
  connectTo,
  ReturnPathReader,
  readMachine,
  type SourceAction,
  SourceMachine,
  sourceBlocks,
} from "../src/guest/qemu/index.ts";
import type { Image } from "../src/image/index.ts";
import type { Figures } from "./rounds.ts";

const PAGE_BYTES = 4096;
const PIECE_PAGES = 64;
/** The answer to it says that the machine runs. */
const RUNNING_PING = 3;

export class ReadyStream {
  readonly #pieces: readonly Uint8Array[];
  readonly #isWhole: boolean;

  private constructor(pieces: readonly Uint8Array[], isWhole: boolean) {
    this.#pieces = pieces;
    this.#isWhole = isWhole;
  }

  /** With `pagesMax` of each block no more than so many of its first pages, which is all that devices need to be loaded. */
  static async of(image: Image, pagesMax: number = Number.POSITIVE_INFINITY): Promise<ReadyStream> {
    const { machine, configuration, devices } = await readMachine(image);
    const blocks = sourceBlocks(image, machine);
    const source = new SourceMachine({
      ...(configuration !== undefined && { configuration }),
      devices,
      sectionId: machine.sectionId,
      blocks,
      push: false,
    });
    const pieces: Uint8Array[] = [];
    const take = (actions: readonly SourceAction[]): void => {
      for (const action of actions) if (action.kind === "send") pieces.push(action.bytes);
    };
    take(source.connected());
    take(source.start());
    take(source.message({ kind: "pong", value: RUNNING_PING }));
    for (const { firstPage, byteLength } of blocks) {
      const until = firstPage + Math.min(pagesMax, byteLength / PAGE_BYTES);
      for (let page = firstPage; page < until; page += PIECE_PAGES) {
        await readPages(image, page, Math.min(PIECE_PAGES, until - page), (first, bytes) =>
          take(bytes === undefined ? source.zeros(first, 1) : source.pages(first, bytes)),
        );
      }
    }
    return new ReadyStream(pieces, source.state === "finishing");
  }

  /**
   * Sends it to a QEMU that waits and was told not to run, so that it asks for nothing but what its devices need; until
   * all is there, or if not all is sent until it would run.
   */
  async send(path: string): Promise<Figures> {
    const startedAt = performance.now();
    const socket = await connectTo(`unix:${path}`, new AbortController().signal);
    const reader = new ReturnPathReader();
    let runMs = Number.NaN;
    const ended = new Promise<void>((resolve, reject) => {
      socket.on("error", reject);
      socket.on("data", (bytes) => {
        reader.push(bytes);
        for (let message = reader.read(); message !== undefined; message = reader.read()) {
          const isRunning = message.kind === "pong" && message.value === RUNNING_PING;
          if (isRunning) runMs = performance.now() - startedAt;
          if (message.kind === "shut" || (isRunning && !this.#isWhole)) resolve();
        }
      });
    });
    for (const piece of this.#pieces) if (!socket.write(piece)) await once(socket, "drain");
    await ended;
    const allMs = performance.now() - startedAt;
    socket.destroy();
    return this.#isWhole ? { runMs, allMs } : { runMs };
  }
}

const ZEROS = Buffer.alloc(PAGE_BYTES);

/** Tells of each page that is zeros, and of runs of the others. */
async function readPages(
  image: Image,
  first: number,
  count: number,
  tell: (first: number, bytes: Uint8Array | undefined) => void,
): Promise<void> {
  const bytes = Buffer.allocUnsafeSlow(count * PAGE_BYTES);
  await image.read(first * PAGE_BYTES, bytes);
  const isZero = (page: number): boolean =>
    ZEROS.compare(bytes, page * PAGE_BYTES, (page + 1) * PAGE_BYTES) === 0;
  for (let page = 0; page < count; ) {
    let until = page + 1;
    if (isZero(page)) tell(first + page, undefined);
    else {
      while (until < count && !isZero(until)) until++;
      tell(first + page, bytes.subarray(page * PAGE_BYTES, until * PAGE_BYTES));
    }
    page = until;
  }
}
