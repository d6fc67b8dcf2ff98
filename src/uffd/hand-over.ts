// Hands a userfaultfd to another process over a unix socket (SCM_RIGHTS), and takes one.
//
// Whoever holds the descriptor can fill the memory of the process that made it, so the socket should be of mode 0600
// (src/linux/sockets.ts makes them so). The message beside the descriptor is one line of JSON with what the handshake
// answered, since the handshake works once on a context and the taker can't repeat it.

import { PAGE_SIZE } from "../abi/memory.ts";
import type { Caller } from "../abi/system.ts";
import { MinorfaultError } from "../base/errors.ts";
import { receive, send } from "../linux/sockets.ts";
import type { Userfaultfd } from "./contract.ts";
import { Ioctls } from "./ioctls.ts";
import { SystemUserfaultfd } from "./userfaultfd.ts";

/** LIMIT: bytes of the message beside the descriptor. */
const MESSAGE_BYTES_MAX = 256;

/** Sends a duplicate of the descriptor over a connected unix socket of the same process; ours stays open. */
export function sendUserfaultfd(caller: Caller, socket: number, uffd: Userfaultfd): void {
  const message = JSON.stringify({ features: `0x${uffd.features.toString(16)}` });
  send(caller, socket, new TextEncoder().encode(`${message}\n`), [uffd.fd]);
}

/**
 * Takes a userfaultfd that another process sent; undefined when the socket is non-blocking and nothing has come.
 *
 * @throws ERR_BAD_MESSAGE when what came is not one descriptor of a userfaultfd with its message; all are closed.
 */
export function receiveUserfaultfd(caller: Caller, socket: number): SystemUserfaultfd | undefined {
  const received = receive(caller, socket, MESSAGE_BYTES_MAX);
  if (received === undefined) return undefined;
  const { bytes, descriptors } = received;
  const [fd] = descriptors;
  const features = parse(new TextDecoder().decode(bytes));
  if (fd !== undefined && descriptors.length === 1 && features !== undefined) {
    // Waking where nobody waits does nothing, and only a userfaultfd after its handshake can do it.
    const { errno } = new Ioctls(caller, fd).wake(0, PAGE_SIZE);
    if (errno === 0) return new SystemUserfaultfd("kernel", caller, fd, features);
  }
  for (const each of descriptors) caller.call("close", each);
  throw new MinorfaultError(
    "ERR_BAD_MESSAGE",
    `What came is not a userfaultfd: ${bytes.byteLength} bytes and ${descriptors.length} descriptors`,
  );
}

function parse(text: string): bigint | undefined {
  const features = /^\{"features":"(0x[0-9a-f]{1,16})"\}\n$/.exec(text)?.[1];
  return features === undefined ? undefined : BigInt(features);
}
