// Unix stream sockets that carry bytes and, beside them, descriptors (SCM_RIGHTS): the way a guest hands over its uffd.
//
//   scratch while sending or receiving:
//   0          56       72              72 + 16 + 4n
//   ├ msghdr   ├ iovec  ├ cmsghdr, fds  ┤ ...          PAYLOAD ── bytes

import { ERRNO } from "../abi/errno.ts";
import { writeWord } from "../abi/structs.ts";
import type { Caller } from "../abi/system.ts";
import { MinorfaultError } from "../base/errors.ts";
import { check } from "./failure.ts";

const AF_UNIX = 1;
const SOCK_STREAM = 1;
const SOCK_SEQPACKET = 5;
const SOCK_CLOEXEC = 0x80000;
const SOL_SOCKET = 1;
const SCM_RIGHTS = 1;
const SO_PEERCRED = 17;
const SO_PEEK_OFF = 42;
const SO_PEERPIDFD = 77;
const SHUT_RDWR = 2;
const MSG = {
  PEEK: 2,
  CTRUNC: 8,
  TRUNC: 0x20,
  DONTWAIT: 0x40,
  NOSIGNAL: 0x4000,
  CMSG_CLOEXEC: 0x40000000,
} as const;

/** LIMIT of the kernel: SCM_MAX_FD, descriptors in one message. */
export const DESCRIPTORS_MAX = 253;
/** struct sockaddr_un has room for a path of 107 bytes and its final zero. */
export const SOCKET_PATH_BYTES_MAX = 107;

const IOVEC = 56;
const CONTROL = 72;
const CONTROL_BYTES = 16 + 4 * DESCRIPTORS_MAX + 4;
const PAYLOAD = 2048;

export interface Received {
  /** Empty when the other side has closed. */
  readonly bytes: Uint8Array;
  /** Ours to close. */
  readonly descriptors: readonly number[];
}

/** A socket that listens at a path which only this user can connect to. The path must be free. */
export function listen(caller: Caller, path: string, backlog = 16): number {
  const fd = unixSocket(caller);
  try {
    // The file is born with the mode of the socket less the umask; taking the rights away before bind leaves no gap.
    check(caller.call("fchmod", fd, 0o600), "fchmod", { subject: path });
    const length = putAddress(caller, path);
    check(caller.call("bind", fd, caller.scratch.address, length), "bind", { subject: path });
    check(caller.call("listen", fd, backlog), "listen", { subject: path });
    return fd;
  } catch (error) {
    caller.call("close", fd);
    throw error;
  }
}

/** Connects to a path; waits while the listener's backlog is full. */
export function connect(caller: Caller, path: string): number {
  const fd = unixSocket(caller);
  const length = putAddress(caller, path);
  const result = caller.call("connect", fd, caller.scratch.address, length);
  if (result < 0) caller.call("close", fd);
  check(result, "connect", { subject: path });
  return fd;
}

/** The next connection; undefined when the listener is non-blocking and there is none. */
export function accept(caller: Caller, listener: number): number | undefined {
  const result = caller.call("accept4", listener, 0, 0, SOCK_CLOEXEC);
  return result === -ERRNO.EAGAIN ? undefined : check(result, "accept4");
}

/** Two connected sockets: of a stream of bytes, or of messages that keep their bounds. */
export function socketPair(caller: Caller, kind: "stream" | "messages" = "stream"): [number, number] {
  const { address, view } = caller.scratch;
  const type = kind === "stream" ? SOCK_STREAM : SOCK_SEQPACKET;
  check(caller.call("socketpair", AF_UNIX, type | SOCK_CLOEXEC, 0, address), "socketpair");
  return [view.getInt32(0, true), view.getInt32(4, true)];
}

/** Who is on the other side, as the kernel knows it. */
export function peer(caller: Caller, fd: number): { pid: number; uid: number; gid: number } {
  const { address, view } = caller.scratch;
  view.setUint32(16, 12, true);
  check(
    caller.call("getsockopt", fd, SOL_SOCKET, SO_PEERCRED, address, address + 16),
    "getsockopt(SO_PEERCRED)",
  );
  return { pid: view.getInt32(0, true), uid: view.getUint32(4, true), gid: view.getUint32(8, true) };
}

/** A descriptor of the process on the other side, exact since Linux 6.5; undefined when it has ended. */
export function peerPidfd(caller: Caller, fd: number): number | undefined {
  const { address, view } = caller.scratch;
  view.setUint32(16, 4, true);
  const result = caller.call("getsockopt", fd, SOL_SOCKET, SO_PEERPIDFD, address, address + 16);
  if (result === 0) return view.getInt32(0, true);
  // Before 6.5 there is only its number, which may have been given to somebody else by now.
  const opened = result === -ERRNO.ENOPROTOOPT ? caller.call("pidfd_open", peer(caller, fd).pid, 0) : result;
  return opened < 0 ? undefined : opened;
}

/** From where on the next peeks look, each beginning where the last one ended. */
export function setPeekOffset(caller: Caller, fd: number, offset: number): void {
  const { address, view } = caller.scratch;
  view.setInt32(0, offset, true);
  const result = caller.call("setsockopt", fd, SOL_SOCKET, SO_PEEK_OFF, address, 4);
  check(result, "setsockopt(SO_PEEK_OFF)");
}

/** Ends both directions: the other side reads the end, whoever else may hold this socket. */
export function shutDown(caller: Caller, fd: number): void {
  const result = caller.call("shutdown", fd, SHUT_RDWR);
  if (result !== -ERRNO.ENOTCONN) check(result, "shutdown");
}

/**
 * Sends bytes and descriptors in one message; answers how many bytes went (a stream may take fewer). Descriptors
 * travel with the first byte, so there must be one. A closed peer is EPIPE, never a signal.
 */
export function send(
  caller: Caller,
  fd: number,
  bytes: Uint8Array,
  descriptors: readonly number[] = [],
): number {
  if (descriptors.length > DESCRIPTORS_MAX || (descriptors.length > 0 && bytes.byteLength === 0)) {
    throw new MinorfaultError(
      "ERR_OUT_OF_RANGE",
      `${descriptors.length} descriptors cannot travel with ${bytes.byteLength} bytes`,
      { hint: `At most ${DESCRIPTORS_MAX}, and at least one byte` },
    );
  }
  const { scratch } = caller;
  const length = Math.min(bytes.byteLength, scratch.bytes.byteLength - PAYLOAD);
  scratch.bytes.set(bytes.subarray(0, length), PAYLOAD);
  const controlLength = descriptors.length === 0 ? 0 : 16 + 4 * descriptors.length;
  // The kernel wants the control length with the padding of CMSG_SPACE or without: without will do.
  putMessage(caller, length, controlLength);
  if (controlLength > 0) {
    writeWord(scratch.view, CONTROL, controlLength);
    scratch.view.setInt32(CONTROL + 8, SOL_SOCKET, true);
    scratch.view.setInt32(CONTROL + 12, SCM_RIGHTS, true);
    for (const [index, descriptor] of descriptors.entries()) {
      scratch.view.setInt32(CONTROL + 16 + 4 * index, descriptor, true);
    }
  }
  return check(caller.call("sendmsg", fd, scratch.address, MSG.NOSIGNAL), "sendmsg");
}

export interface ReceiveOptions {
  /** Leaves what it sees in the socket; the descriptors are duplicates. */
  readonly peek?: boolean;
  /** Answers undefined where it would have to wait, although the socket is a blocking one. */
  readonly now?: boolean;
}

/** LIMIT: bytes of one `receive`. */
export const RECEIVE_BYTES_MAX = 0xf000;

/** Receives at most `byteLengthMax` bytes and the descriptors beside them; undefined when it would have to wait. */
export function receive(
  caller: Caller,
  fd: number,
  byteLengthMax: number = RECEIVE_BYTES_MAX,
  { peek = false, now = false }: ReceiveOptions = {},
): Received | undefined {
  const { scratch } = caller;
  const room = scratch.bytes.byteLength - PAYLOAD;
  putMessage(caller, Math.min(byteLengthMax, room), CONTROL_BYTES);
  const flags = MSG.CMSG_CLOEXEC | (peek ? MSG.PEEK : 0) | (now ? MSG.DONTWAIT : 0);
  const result = caller.call("recvmsg", fd, scratch.address, flags);
  if (result === -ERRNO.EAGAIN) return undefined;
  const length = check(result, "recvmsg");
  const descriptors = takeDescriptors(scratch.view);
  const answered = scratch.view.getUint32(48, true);
  if ((answered & (MSG.CTRUNC | MSG.TRUNC)) !== 0) {
    for (const descriptor of descriptors) caller.call("close", descriptor);
    throw new MinorfaultError(
      "ERR_BAD_MESSAGE",
      (answered & MSG.TRUNC) === 0
        ? "Descriptors were lost: too many in one message, or no room for more"
        : `A message of more than ${byteLengthMax} bytes was cut off`,
    );
  }
  return { bytes: scratch.bytes.slice(PAYLOAD, PAYLOAD + length), descriptors };
}

function unixSocket(caller: Caller): number {
  return check(caller.call("socket", AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), "socket");
}

/** struct sockaddr_un at the start of the scratch; answers its length. */
function putAddress(caller: Caller, path: string): number {
  const name = new TextEncoder().encode(path);
  if (name.byteLength === 0 || name.byteLength > SOCKET_PATH_BYTES_MAX || path.includes("\0")) {
    throw new MinorfaultError(
      "ERR_BAD_ARGUMENT",
      `A socket's path has 1 to ${SOCKET_PATH_BYTES_MAX} bytes and no zero among them: ${path}`,
    );
  }
  const { bytes, view } = caller.scratch;
  view.setUint16(0, AF_UNIX, true);
  bytes.set(name, 2);
  bytes[2 + name.byteLength] = 0;
  return 2 + name.byteLength + 1;
}

/** struct msghdr with one iovec over the payload and, where there is any, control data. */
function putMessage(caller: Caller, length: number, controlLength: number): void {
  const { address, bytes, view } = caller.scratch;
  bytes.fill(0, 0, CONTROL + 16);
  writeWord(view, 16, address + IOVEC);
  writeWord(view, 24, 1);
  writeWord(view, 32, controlLength === 0 ? 0 : address + CONTROL);
  writeWord(view, 40, controlLength);
  writeWord(view, IOVEC, address + PAYLOAD);
  writeWord(view, IOVEC + 8, length);
}

/** The descriptors of every SCM_RIGHTS record that the kernel wrote. */
function takeDescriptors(view: DataView): number[] {
  const descriptors: number[] = [];
  const until = CONTROL + view.getUint32(40, true);
  for (let at = CONTROL; at + 16 <= until; ) {
    const length = view.getUint32(at, true);
    if (length < 16) break;
    if (view.getInt32(at + 8, true) === SOL_SOCKET && view.getInt32(at + 12, true) === SCM_RIGHTS) {
      for (let fd = at + 16; fd + 4 <= at + length; fd += 4) descriptors.push(view.getInt32(fd, true));
    }
    at += Math.ceil(length / 8) * 8;
  }
  return descriptors;
}
