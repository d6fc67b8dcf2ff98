// What comes over a connection, read into one buffer that stays: a fresh one for each read costs the kernel more than
// filling it, since whole machines come this way.

import { once } from "node:events";
import { Socket, type SocketConstructorOpts } from "node:net";
import { MinorfaultError } from "../../base/errors.ts";

/** More than the kernel has of a connection at once. */
const READ_BYTES = 2 ** 19;

/** What Node's types know of connections only, though it holds for every socket. */
interface ReadIntoOptions extends SocketConstructorOpts {
  readonly onread: { readonly buffer: Uint8Array; readonly callback: (byteLength: number) => boolean };
}

export class IncomingStream {
  readonly #socket: Socket;
  readonly #buffer = Buffer.allocUnsafeSlow(READ_BYTES);
  /** Bytes in the buffer that nobody has seen. */
  #waiting = 0;
  #isOver = false;
  #isUnwanted = false;
  #news: () => void = () => {};

  /** Takes over a descriptor. */
  constructor(fd: number) {
    const callback = (byteLength: number): boolean => {
      if (this.#isUnwanted) return true;
      this.#waiting = byteLength;
      this.#news();
      return false;
    };
    const options: ReadIntoOptions = { fd, onread: { buffer: this.#buffer, callback } };
    this.#socket = new Socket(options);
    for (const event of ["end", "error", "close"]) {
      this.#socket.on(event, () => {
        this.#isOver = true;
        this.#news();
      });
    }
  }

  /**
   * Pieces, each valid until the next one is asked for. Whoever stops to listen leaves the connection open: QEMU closes
   * it when it has cleaned up behind a migration, which is worth waiting for.
   */
  async *pieces(signal?: AbortSignal): AsyncGenerator<Uint8Array> {
    const wake = (): void => this.#news();
    signal?.addEventListener("abort", wake, { once: true });
    try {
      for (;;) {
        signal?.throwIfAborted();
        if (this.#waiting > 0) {
          const piece = this.#buffer.subarray(0, this.#waiting);
          this.#waiting = 0;
          yield piece;
          continue;
        }
        if (this.#socket.errored !== null) throw broken(this.#socket.errored);
        if (this.#isOver) return;
        const news = new Promise<void>((resolve) => {
          this.#news = resolve;
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
  }
}

function broken(cause: Error): MinorfaultError {
  return new MinorfaultError("ERR_QEMU", `The connection of QEMU broke: ${cause.message}`, { cause });
}
