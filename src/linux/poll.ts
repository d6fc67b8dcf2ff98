// Waiting for descriptors: ppoll for a few of them at a time, epoll for a set that stays.
//
//   struct pollfd       0: fd    4: events (16 bits)  6: revents (16 bits)                       8 bytes
//   struct epoll_event  0: events (32 bits)  x64: 4: data, packed, 12 bytes   arm64: 8: data, 16 bytes

import { ERRNO } from "../abi/errno.ts";
import { O, POLL } from "../abi/memory.ts";
import { writeWord } from "../abi/structs.ts";
import type { Caller } from "../abi/system.ts";
import { check } from "./failure.ts";

const POLLFD_SIZE = 8;
const EPOLL_CTL = { ADD: 1, DEL: 2, MOD: 3 } as const;

export interface Watched {
  readonly fd: number;
  /** POLL bits; default IN. */
  readonly events?: number;
}

/**
 * ppoll(2): the POLL bits of each descriptor, in their order; all 0 when the time was up. Milliseconds, -1 waits for
 * ever. A signal ends the wait as the time does.
 */
export function poll(caller: Caller, watched: readonly Watched[], timeoutMs: number): number[] {
  const { address, view } = caller.scratch;
  const timeoutAt = watched.length * POLLFD_SIZE;
  for (const [index, { fd, events = POLL.IN }] of watched.entries()) {
    view.setInt32(index * POLLFD_SIZE, fd, true);
    view.setUint32(index * POLLFD_SIZE + 4, events, true);
  }
  writeTimespec(view, timeoutAt, timeoutMs);
  const timeout = timeoutMs < 0 ? 0 : address + timeoutAt;
  const result = caller.call("ppoll", address, watched.length, timeout, 0, 8);
  if (result === -ERRNO.EINTR) return watched.map(() => 0);
  check(result, "ppoll");
  return watched.map((_, index) => view.getUint16(index * POLLFD_SIZE + 6, true));
}

/** Writes a struct timespec of 16 bytes. */
export function writeTimespec(view: DataView, at: number, milliseconds: number): void {
  const whole = Math.max(0, Math.floor(milliseconds / 1000));
  writeWord(view, at, whole);
  writeWord(view, at + 8, Math.max(0, Math.round((milliseconds - whole * 1000) * 1e6)));
}

/** A set of descriptors and the question which of them are ready. */
export class Epoll {
  readonly fd: number;
  readonly #caller: Caller;
  readonly #packed: boolean;
  #closed = false;

  /** A new one, or another thread's, by its descriptor. */
  constructor(caller: Caller, architecture: string = process.arch, fd?: number) {
    this.#caller = caller;
    this.#packed = architecture === "x64";
    this.fd = fd ?? check(caller.call("epoll_create1", O.CLOEXEC), "epoll_create1");
  }

  add(fd: number, events: number = POLL.IN): void {
    this.#control(EPOLL_CTL.ADD, fd, events);
  }

  change(fd: number, events: number): void {
    this.#control(EPOLL_CTL.MOD, fd, events);
  }

  remove(fd: number): void {
    this.#control(EPOLL_CTL.DEL, fd, 0);
  }

  /**
   * As `wait`, for those who wait often: puts descriptor and bits of each into `ready`, two numbers for each that finds room,
   * and answers how many there are.
   */
  await(timeoutMs: number, ready: Int32Array): number {
    const { address, view } = this.#caller.scratch;
    const size = this.#packed ? 12 : 16;
    const readyMax = ready.length >>> 1;
    const result = this.#caller.call("epoll_pwait", this.fd, address, readyMax, timeoutMs, 0, 8);
    if (result === -ERRNO.EINTR) return 0;
    const count = check(result, "epoll_pwait");
    for (let index = 0; index < count; index++) {
      ready[2 * index] = view.getInt32(index * size + (size - 8), true);
      ready[2 * index + 1] = view.getUint32(index * size, true);
    }
    return count;
  }

  /** The descriptors that are ready, with their bits. Milliseconds, -1 waits for ever; a signal ends the wait. */
  wait(timeoutMs: number, readyMax = 64): { readonly fd: number; readonly events: number }[] {
    const { address, view } = this.#caller.scratch;
    const size = this.#packed ? 12 : 16;
    const result = this.#caller.call("epoll_pwait", this.fd, address, readyMax, timeoutMs, 0, 8);
    if (result === -ERRNO.EINTR) return [];
    const count = check(result, "epoll_pwait");
    return Array.from({ length: count }, (_, index) => ({
      fd: view.getInt32(index * size + (size - 8), true),
      events: view.getUint32(index * size, true),
    }));
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#caller.call("close", this.fd);
  }

  [Symbol.dispose](): void {
    this.close();
  }

  #control(operation: number, fd: number, events: number): void {
    const { address, view } = this.#caller.scratch;
    view.setUint32(0, events, true);
    writeWord(view, this.#packed ? 4 : 8, fd);
    check(this.#caller.call("epoll_ctl", this.fd, operation, fd, address), "epoll_ctl", {
      subject: `descriptor ${fd}`,
    });
  }
}
