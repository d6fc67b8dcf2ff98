// `Userfaultfd` over a descriptor in some process: the kernel's or the software implementation's, the code is the
// same. It adds to `Ioctls` what the contract promises: checks before, typed errors after, and an end.

import { ERRNO, errnoName } from "../abi/errno.ts";
import type { UffdMessage } from "../abi/message.ts";
import type { Caller } from "../abi/system.ts";
import {
  UFFDIO_CONTINUE_MODE,
  UFFDIO_COPY_MODE,
  UFFDIO_MOVE_MODE,
  UFFDIO_REGISTER_MODE,
  UFFDIO_WRITEPROTECT_MODE,
  UFFDIO_ZEROPAGE_MODE,
} from "../abi/userfaultfd.ts";
import { hex, MinorfaultError } from "../base/errors.ts";
import { poll } from "../linux/poll.ts";
import { checkBytes, checkNumber, checkOptions, checkPages, checkTimeout } from "./arguments.ts";
import type { FillOptions, FillResult, RegisterModes, Staging, Userfaultfd } from "./contract.ts";
import { type FillAnswer, Ioctls } from "./ioctls.ts";

/** LIMIT: messages taken by one read, so that they fit the caller's scratch memory. */
const MESSAGES_MAX = 256;
const F_DUPFD_CLOEXEC = 1030;
/** LIMIT: bytes of one piece of staging memory. */
const STAGING_BYTES_MAX = 2 ** 32;
/** A call in another process has a deadline of seconds, so a long wait is made of short ones. */
const WAIT_SLICE_MS = 1000;

// Answers of a fill that a pager branches on (LAW 3); any other errno is a mistake or a broken system.
const ORDINARY: ReadonlySet<number> = new Set([
  ERRNO.EAGAIN,
  ERRNO.EEXIST,
  ERRNO.ENOENT,
  ERRNO.ESRCH,
  ERRNO.EBUSY,
  ERRNO.EFAULT,
  ERRNO.ENOMEM,
]);

export class SystemUserfaultfd implements Userfaultfd {
  readonly implementation: "kernel" | "software";
  readonly features: bigint;
  readonly #caller: Caller;
  readonly #ioctls: Ioctls;
  #closed = false;

  /** Takes over a descriptor after its handshake; `features` is what the handshake answered. */
  constructor(implementation: "kernel" | "software", caller: Caller, fd: number, features: bigint) {
    this.implementation = implementation;
    this.features = features;
    this.#caller = caller;
    this.#ioctls = new Ioctls(caller, fd);
  }

  get fd(): number {
    return this.#ioctls.fd;
  }

  staging(byteLength: number): Staging {
    this.#checkOpen();
    checkNumber("staging length", byteLength);
    if (byteLength < 1 || byteLength > STAGING_BYTES_MAX) {
      const message = `staging length must lie between 1 and ${STAGING_BYTES_MAX}, got ${byteLength}`;
      throw new MinorfaultError("ERR_OUT_OF_RANGE", message);
    }
    return this.#caller.share(byteLength);
  }

  register(start: number, byteLength: number, modes: RegisterModes): bigint {
    this.#checkOpen();
    checkPages("register", start, byteLength);
    checkOptions("register", modes);
    const mode =
      (modes.missing ? UFFDIO_REGISTER_MODE.MISSING : 0) |
      (modes.writeProtect ? UFFDIO_REGISTER_MODE.WP : 0) |
      (modes.minor ? UFFDIO_REGISTER_MODE.MINOR : 0);
    if (mode === 0) {
      throw new MinorfaultError("ERR_BAD_ARGUMENT", "register needs one of missing, writeProtect or minor");
    }
    const { errno, ioctls } = this.#ioctls.register(start, byteLength, mode);
    this.#mustSucceed("UFFDIO_REGISTER", errno, start, byteLength);
    return ioctls ?? 0n;
  }

  unregister(start: number, byteLength: number): void {
    this.#checkOpen();
    checkPages("unregister", start, byteLength);
    const { errno } = this.#ioctls.unregister(start, byteLength);
    this.#mustSucceed("UFFDIO_UNREGISTER", errno, start, byteLength);
  }

  copy(target: number, source: number, byteLength: number, options: FillOptions = {}): FillResult {
    this.#checkOpen();
    checkPages("copy", target, byteLength);
    checkBytes("copy source", source, byteLength);
    const mode = dontWake("copy", options) | (options.writeProtect ? UFFDIO_COPY_MODE.WP : 0);
    return this.#result(
      "UFFDIO_COPY",
      this.#ioctls.copy(target, source, byteLength, mode),
      target,
      byteLength,
    );
  }

  zeropage(target: number, byteLength: number, options: FillOptions = {}): FillResult {
    this.#checkOpen();
    checkPages("zeropage", target, byteLength);
    const answer = this.#ioctls.zeropage(target, byteLength, dontWake("zeropage", options));
    return this.#result("UFFDIO_ZEROPAGE", answer, target, byteLength);
  }

  continue(target: number, byteLength: number, options: FillOptions = {}): FillResult {
    this.#checkOpen();
    checkPages("continue", target, byteLength);
    const mode = dontWake("continue", options) | (options.writeProtect ? UFFDIO_CONTINUE_MODE.WP : 0);
    const answer = this.#ioctls.continue(target, byteLength, mode);
    return this.#result("UFFDIO_CONTINUE", answer, target, byteLength);
  }

  poison(target: number, byteLength: number, options: FillOptions = {}): FillResult {
    this.#checkOpen();
    checkPages("poison", target, byteLength);
    const answer = this.#ioctls.poison(target, byteLength, dontWake("poison", options));
    return this.#result("UFFDIO_POISON", answer, target, byteLength);
  }

  move(
    target: number,
    source: number,
    byteLength: number,
    options: FillOptions & { readonly allowHoles?: boolean } = {},
  ): FillResult {
    this.#checkOpen();
    checkPages("move", target, byteLength);
    checkPages("move source", source, byteLength);
    const mode = dontWake("move", options) | (options.allowHoles ? UFFDIO_MOVE_MODE.ALLOW_SRC_HOLES : 0);
    return this.#result(
      "UFFDIO_MOVE",
      this.#ioctls.move(target, source, byteLength, mode),
      target,
      byteLength,
    );
  }

  wake(start: number, byteLength: number): void {
    this.#checkOpen();
    checkPages("wake", start, byteLength);
    this.#mustSucceed("UFFDIO_WAKE", this.#ioctls.wake(start, byteLength).errno, start, byteLength);
  }

  writeProtect(
    start: number,
    byteLength: number,
    on: boolean,
    options: { readonly wake?: boolean } = {},
  ): void {
    this.#checkOpen();
    checkPages("writeProtect", start, byteLength);
    checkOptions("writeProtect", options);
    // Protecting wakes nobody by its nature, and the kernel refuses both bits together.
    const wakeLess = !on && options.wake === false ? UFFDIO_WRITEPROTECT_MODE.DONTWAKE : 0;
    const mode = on ? UFFDIO_WRITEPROTECT_MODE.WP : wakeLess;
    const { errno } = this.#ioctls.writeprotect(start, byteLength, mode);
    this.#mustSucceed("UFFDIO_WRITEPROTECT", errno, start, byteLength);
  }

  read(messagesMax = 64): UffdMessage[] {
    this.#checkOpen();
    checkNumber("messagesMax", messagesMax);
    if (messagesMax < 1 || messagesMax > MESSAGES_MAX) {
      throw new MinorfaultError("ERR_OUT_OF_RANGE", `messagesMax must lie between 1 and ${MESSAGES_MAX}`);
    }
    const { errno, messages } = this.#ioctls.read(messagesMax);
    if (errno !== 0 && errno !== ERRNO.EAGAIN && errno !== ERRNO.EINTR) this.#throw("read", errno);
    return messages;
  }

  wait(timeoutMs: number): boolean {
    this.#checkOpen();
    checkTimeout(timeoutMs);
    const isThere = (ms: number) => poll(this.#caller, [{ fd: this.fd }], ms)[0] !== 0;
    // The software implementation's time passes at once, and for ever is something that it refuses.
    if (this.implementation === "software") return isThere(timeoutMs);
    const until = timeoutMs < 0 ? Number.POSITIVE_INFINITY : performance.now() + timeoutMs;
    for (;;) {
      const leftMs = until - performance.now();
      if (isThere(Math.max(0, Math.min(leftMs, WAIT_SLICE_MS)))) return true;
      if (leftMs <= WAIT_SLICE_MS) return false;
    }
  }

  duplicate(): Userfaultfd {
    this.#checkOpen();
    const fd = this.#caller.call("fcntl", this.fd, F_DUPFD_CLOEXEC, 0);
    if (fd < 0) this.#throw("fcntl", -fd);
    return new SystemUserfaultfd(this.implementation, this.#caller, fd, this.features);
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#caller.call("close", this.fd);
  }

  [Symbol.dispose](): void {
    this.close();
  }

  #checkOpen(): void {
    if (this.#closed) throw new MinorfaultError("ERR_CLOSED", "This userfaultfd has been closed");
  }

  #result(operation: string, answer: FillAnswer, address: number, byteLength: number): FillResult {
    if (answer.errno !== 0 && !ORDINARY.has(answer.errno)) {
      this.#throw(operation, answer.errno, address, byteLength);
    }
    return answer;
  }

  #mustSucceed(operation: string, errno: number, address: number, byteLength: number): void {
    if (errno !== 0) this.#throw(operation, errno, address, byteLength);
  }

  #throw(operation: string, errno: number, address?: number, byteLength?: number): never {
    const where = address === undefined ? "" : ` at address ${hex(address)}, ${byteLength} bytes`;
    throw new MinorfaultError("ERR_SYSCALL", `${operation} failed with ${errnoName(errno)}${where}`, {
      errno,
      operation,
      ...(address === undefined ? {} : { address }),
      ...(byteLength === undefined ? {} : { byteLength }),
    });
  }
}

function dontWake(operation: string, options: FillOptions): number {
  checkOptions(operation, options);
  // The bit is the same for every fill.
  return options.wake === false ? UFFDIO_ZEROPAGE_MODE.DONTWAKE : 0;
}
