// What comes over a connection, read into one buffer that stays, or straight to where it is to go: a fresh buffer for each
// read costs the kernel more than filling it, and every copy counts, since whole machines come this way.
//
// Node says when there is something to read, by reading a few bytes of it; all else we read ourselves.

import { once } from "node:events";
import { Socket, type SocketConstructorOpts } from "node:net";
import { setImmediate as others } from "node:timers/promises";
import { MinorfaultError } from "../../base/errors.ts";
import { mapMemory, ReadPlaces } from "../../linux/index.ts";

/** More than the kernel has of a connection at once. */
const READ_BYTES = 2 ** 19;
const NEWS_BYTES = 16;
const NOTHING = new Uint8Array(0);

/** Whoever knows what comes next, and where it is to go. */
export interface Landing {
  /** Adds places for what comes next; answers false where that is not known. */
  offer(places: ReadPlaces): boolean;
  /** So many bytes have come into the places that were offered. */
  landed(byteLength: number): void;
}

/** What Node's types know of connections only, though it holds for every socket. */
interface ReadIntoOptions extends SocketConstructorOpts {
  readonly onread: { readonly buffer: Uint8Array; readonly callback: (byteLength: number) => boolean };
}

export class IncomingStream {
  readonly #fd: number;
  readonly #socket: Socket;
  readonly #news = Buffer.allocUnsafeSlow(NEWS_BYTES);
  /** Of the news, bytes that nobody has seen. */
  #newsBytes = 0;
  readonly #memory = mapMemory(READ_BYTES);
  readonly #places = new ReadPlaces();
  #isOver = false;
  #isUnwanted = false;
  #wake: () => void = () => {};

  /** Takes over a descriptor. */
  constructor(fd: number) {
    this.#fd = fd;
    const callback = (byteLength: number): boolean => {
      if (this.#isUnwanted) {
        this.#throwAway();
        return true;
      }
      this.#newsBytes = byteLength;
      this.#wake();
      return false;
    };
    const options: ReadIntoOptions = { fd, onread: { buffer: this.#news, callback } };
    this.#socket = new Socket(options);
    for (const event of ["end", "error", "close"]) {
      this.#socket.on(event, () => {
        this.#isOver = true;
        this.#wake();
      });
    }
  }

  /**
   * Pieces, each valid until the next one is asked for; an empty one where everything has gone to places that were
   * offered. Whoever stops to listen leaves the connection open: QEMU closes it when it has cleaned up behind a
   * migration, which is worth waiting for.
   */
  async *pieces(signal?: AbortSignal, landing?: Landing): AsyncGenerator<Uint8Array> {
    const wake = (): void => this.#wake();
    signal?.addEventListener("abort", wake, { once: true });
    try {
      for (;;) {
        signal?.throwIfAborted();
        const piece = this.#next(landing);
        if (piece !== undefined) {
          yield piece;
          // Whoever works on what has come has news for this thread as well.
          await others();
          continue;
        }
        if (this.#socket.errored !== null) throw broken(this.#socket.errored);
        if (this.#isOver) return;
        const news = new Promise<void>((resolve) => {
          this.#wake = resolve;
        });
        this.#socket.resume();
        await news;
      }
    } finally {
      signal?.removeEventListener("abort", wake);
    }
  }

  /** Resolves when the other side has closed, or when time is up; what still comes is thrown away. */
  async ended(ms: number): Promise<void> {
    if (this.#isOver || this.#socket.destroyed) return;
    this.#isUnwanted = true;
    this.#socket.resume();
    await once(this.#socket, "close", { signal: AbortSignal.timeout(ms) }).catch(() => {});
  }

  close(): void {
    this.#socket.destroy();
    this.#places.close();
    this.#memory.close();
  }

  /** What has come, undefined where nothing has. That it has ended is Node's to tell. */
  #next(landing: Landing | undefined): Uint8Array | undefined {
    if (this.#newsBytes > 0) {
      const piece = this.#news.subarray(0, this.#newsBytes);
      this.#newsBytes = 0;
      return piece;
    }
    const places = this.#places;
    places.clear();
    const isOffered = landing?.offer(places) ?? false;
    if (!isOffered) places.add(this.#memory.address, READ_BYTES);
    const byteLength = this.#read();
    if (byteLength === 0) return undefined;
    if (!isOffered) return this.#memory.bytes.subarray(0, byteLength);
    landing?.landed(byteLength);
    return NOTHING;
  }

  #throwAway(): void {
    this.#places.clear();
    this.#places.add(this.#memory.address, READ_BYTES);
    try {
      while (this.#read() > 0);
    } catch {
      // Node tells of a connection that broke.
    }
  }

  /** Reads into the places; 0 where nothing has come. */
  #read(): number {
    if (this.#socket.destroyed) return 0;
    try {
      return this.#places.read(this.#fd) ?? 0;
    } catch (error) {
      throw broken(error);
    }
  }
}

function broken(cause: unknown): MinorfaultError {
  const reason = cause instanceof Error ? cause.message : String(cause);
  return new MinorfaultError("ERR_QEMU", `The connection of QEMU broke: ${reason}`, { cause });
}
