// Unix sockets with descriptors beside the bytes, and waiting for them.

import assert from "node:assert/strict";
import { mkdtempSync, readlinkSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { ERRNO } from "../../src/abi/errno.ts";
import { POLL } from "../../src/abi/memory.ts";
import {
  accept,
  close,
  connect,
  DESCRIPTORS_MAX,
  duplicate,
  Epoll,
  isClosedOnExec,
  isNonBlocking,
  listen,
  local,
  mapMemory,
  memfd,
  peer,
  poll,
  receive,
  send,
  setClosedOnExec,
  setNonBlocking,
  socketPair,
} from "../../src/linux/index.ts";
import { skipUnlessLinux as skip } from "./host.ts";

const folder = mkdtempSync(join(tmpdir(), "minorfault-sockets-"));
after(() => rmSync(folder, { recursive: true }));
const text = (value: string) => new TextEncoder().encode(value);

test("bytes and a descriptor travel together, and the descriptor is the same memory", { skip }, () => {
  const [a, b] = socketPair(local);
  const fd = memfd(local, "sent", 4096);
  assert.equal(send(local, a, text("take this"), [fd]), 9);
  const received = receive(local, b);
  assert.ok(received);
  assert.equal(new TextDecoder().decode(received.bytes), "take this");
  assert.equal(received.descriptors.length, 1);
  const [arrived = -1] = received.descriptors;
  assert.notEqual(arrived, fd);
  assert.ok(isClosedOnExec(local, arrived));
  const mine = mapMemory(4096, { fd });
  const theirs = mapMemory(4096, { fd: arrived });
  mine.bytes[0] = 77;
  assert.equal(theirs.bytes[0], 77);
  for (const each of [a, b, fd, arrived]) close(local, each);
  mine.close();
  theirs.close();
});

test("a message carries as many descriptors as the kernel allows, and no more", { skip }, () => {
  const [a, b] = socketPair(local);
  const many = new Array<number>(DESCRIPTORS_MAX).fill(a);
  send(local, a, text("x"), many);
  const received = receive(local, b);
  assert.equal(received?.descriptors.length, DESCRIPTORS_MAX);
  for (const descriptor of received?.descriptors ?? []) close(local, descriptor);
  assert.throws(() => send(local, a, text("x"), [...many, a]), { code: "ERR_OUT_OF_RANGE" });
  assert.throws(() => send(local, a, new Uint8Array(), [a]), { code: "ERR_OUT_OF_RANGE" });
  assert.throws(() => send(local, a, text("x"), [9999]), { code: "ERR_SYSCALL", errno: ERRNO.EBADF });
  close(local, a);
  close(local, b);
});

test("the end of a stream is an empty message, and a closed peer an errno instead of a signal", {
  skip,
}, () => {
  const [a, b] = socketPair(local);
  close(local, a);
  assert.equal(receive(local, b)?.bytes.byteLength, 0);
  assert.throws(() => send(local, b, text("x")), { code: "ERR_SYSCALL", errno: ERRNO.EPIPE });
  close(local, b);
});

test("a long message goes in the pieces that the kernel takes", { skip }, () => {
  const [a, b] = socketPair(local);
  setNonBlocking(local, b, true);
  const long = Uint8Array.from({ length: 150_000 }, (_, index) => index % 251);
  const arrived: number[] = [];
  for (let sent = 0; sent < long.byteLength; ) {
    sent += send(local, a, long.subarray(sent));
    for (let piece = receive(local, b); piece !== undefined; piece = receive(local, b)) {
      arrived.push(...piece.bytes);
    }
  }
  assert.deepEqual(Uint8Array.from(arrived), long);
  close(local, a);
  close(local, b);
});

test("a listening socket's file is its owner's alone", { skip }, () => {
  const path = join(folder, "owner");
  const listener = listen(local, path);
  assert.equal(statSync(path).mode & 0o777, 0o600);
  const client = connect(local, path);
  const server = accept(local, listener);
  assert.ok(server !== undefined);
  assert.deepEqual(peer(local, server), {
    pid: process.pid,
    uid: process.getuid?.(),
    gid: process.getgid?.(),
  });
  setNonBlocking(local, listener, true);
  assert.equal(accept(local, listener), undefined);
  for (const each of [listener, client, server]) close(local, each);
});

test("a path that cannot be is refused, one that is taken or deaf is an errno", { skip }, () => {
  assert.throws(() => listen(local, join(folder, "x".repeat(200))), { code: "ERR_BAD_ARGUMENT" });
  assert.throws(() => listen(local, ""), { code: "ERR_BAD_ARGUMENT" });
  assert.throws(() => connect(local, join(folder, "nobody")), { errno: ERRNO.ENOENT });
  const path = join(folder, "taken");
  const listener = listen(local, path);
  const open = statSync("/proc/self/fd").nlink;
  assert.throws(() => listen(local, path), { code: "ERR_SYSCALL", operation: "bind", errno: 98 });
  close(local, listener);
  assert.throws(() => connect(local, path), { errno: ERRNO.ECONNREFUSED });
  assert.ok(open > 0);
});

test("what fails leaves no descriptor behind", { skip }, () => {
  const next = () => {
    const fd = duplicate(local, 0);
    close(local, fd);
    return fd;
  };
  const before = next();
  assert.throws(() => connect(local, join(folder, "nobody")));
  assert.throws(() => listen(local, join(folder, "no/such/folder")));
  assert.throws(() => memfd(local, "bad", -1));
  assert.equal(next(), before);
});

test("poll tells which of several are ready, and epoll remembers them", { skip }, () => {
  const [a, b] = socketPair(local);
  const [c, d] = socketPair(local);
  const watched = [{ fd: b }, { fd: d }, { fd: d, events: POLL.OUT }];
  assert.deepEqual(poll(local, watched, 0), [0, 0, POLL.OUT]);
  send(local, a, text("x"));
  assert.deepEqual(poll(local, watched, -1), [POLL.IN, 0, POLL.OUT]);

  const epoll = new Epoll(local);
  epoll.add(b);
  epoll.add(d);
  assert.deepEqual(epoll.wait(-1), [{ fd: b, events: POLL.IN }]);
  epoll.change(d, POLL.OUT);
  epoll.remove(b);
  assert.deepEqual(epoll.wait(0), [{ fd: d, events: POLL.OUT }]);
  assert.throws(() => epoll.remove(b), { code: "ERR_SYSCALL", errno: ERRNO.ENOENT });
  epoll.close();
  epoll.close();
  for (const each of [a, b, c, d]) close(local, each);
});

test("poll waits no longer than it was told", { skip }, () => {
  const [a, b] = socketPair(local);
  const begin = performance.now();
  assert.deepEqual(poll(local, [{ fd: b }], 30), [0]);
  const waited = performance.now() - begin;
  assert.ok(waited >= 29, `${waited} ms`);
  close(local, a);
  close(local, b);
});

test("the flags of a descriptor can be read and changed", { skip }, () => {
  const [a, b] = socketPair(local);
  assert.equal(isNonBlocking(local, a), false);
  setNonBlocking(local, a, true);
  const twin = duplicate(local, a);
  assert.equal(isNonBlocking(local, twin), true, "a duplicate shares them");
  setNonBlocking(local, twin, false);
  assert.equal(isNonBlocking(local, a), false);
  assert.equal(isClosedOnExec(local, twin), true);
  setClosedOnExec(local, twin, false);
  assert.equal(isClosedOnExec(local, twin), false);
  assert.match(readlinkSync(`/proc/self/fd/${twin}`), /^socket:/);
  for (const each of [a, b, twin]) close(local, each);
  assert.throws(() => close(local, twin), { code: "ERR_SYSCALL", errno: ERRNO.EBADF });
});
