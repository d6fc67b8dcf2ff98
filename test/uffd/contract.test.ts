// The laws of src/uffd/contract.ts, on every implementation that this host has. No thread of this process touches
// paged memory, so nothing here can block.

import assert from "node:assert/strict";
import { after, describe, test } from "node:test";
import { ERRNO, PAGE_SIZE, POLL } from "../../src/abi/index.ts";
import type { Process } from "../../src/abi/system.ts";
import { type ErrorCode, MinorfaultError } from "../../src/base/errors.ts";
import { type GuestHost, kernelRefusal, openGuestHost } from "../../src/guest/system.ts";
import type { SystemAddressSpace } from "../../src/uffd/address-space.ts";
import { type OpenOptions, openUserfaultfd } from "../../src/uffd/open.ts";
import { SystemUserfaultfd } from "../../src/uffd/userfaultfd.ts";

const PAGES = 8;

function fails(code: ErrorCode, errno?: number): (error: unknown) => boolean {
  return (error) => {
    assert.ok(error instanceof MinorfaultError, String(error));
    assert.equal(error.code, code, error.message);
    if (errno !== undefined) assert.equal(error.errno, errno, error.message);
    return true;
  };
}

for (const implementation of ["kernel", "software"] as const) {
  const refusal = implementation === "kernel" ? kernelRefusal() : undefined;
  describe(`the ${implementation}'s userfaultfd`, { skip: refusal ?? false }, () => {
    let host: GuestHost | undefined;
    const open = (): GuestHost => {
      host ??= openGuestHost(implementation);
      return host;
    };
    after(() => host?.close());

    const setUp = (options?: OpenOptions) => {
      const memory = open().spawn();
      const uffd = memory.openUserfaultfd(options);
      const start = memory.map(PAGES * PAGE_SIZE);
      uffd.register(start, PAGES * PAGE_SIZE, { missing: true });
      const page = uffd.staging(PAGE_SIZE);
      page.bytes.fill(7);
      return { memory, uffd, start, page };
    };

    test("a load waits for its page, and reads what copy() installed", async () => {
      const { memory, uffd, start, page } = setUp();
      const loading = memory.load(start + 5 * PAGE_SIZE + 3);
      memory.settle();
      assert.ok(uffd.wait(0));
      const messages = uffd.read();
      assert.deepEqual(messages, [{ event: "pagefault", flags: 0, address: start + 5 * PAGE_SIZE, ptid: 0 }]);
      const { bytes, errno } = uffd.copy(start + 5 * PAGE_SIZE, page.address, PAGE_SIZE);
      assert.deepEqual([bytes, errno], [PAGE_SIZE, 0]);
      assert.equal(await loading, 7);
      assert.ok(!uffd.wait(0));
    });

    test("a fill that meets a present page says how far it came, and repeats tell why", () => {
      const { uffd, start, page } = setUp();
      assert.equal(uffd.zeropage(start + 2 * PAGE_SIZE, PAGE_SIZE).errno, 0);
      const wide = uffd.zeropage(start, 4 * PAGE_SIZE);
      assert.deepEqual([wide.bytes, wide.errno], [2 * PAGE_SIZE, ERRNO.EAGAIN]);
      const again = uffd.copy(start + 2 * PAGE_SIZE, page.address, PAGE_SIZE);
      assert.deepEqual([again.bytes, again.errno], [0, ERRNO.EEXIST]);
    });

    test("copy() with wake: false leaves the thread waiting until wake()", async () => {
      const { memory, uffd, start, page } = setUp();
      const loading = memory.load(start);
      memory.settle();
      uffd.copy(start, page.address, PAGE_SIZE, { wake: false });
      memory.settle();
      assert.equal(memory.process.threads.find((thread) => thread.state === "blocked") !== undefined, true);
      uffd.wake(start, PAGE_SIZE);
      assert.equal(await loading, 7);
    });

    test("a poisoned page tells whoever touches it, and discarding it repairs it", async () => {
      const { memory, uffd, start, page } = setUp();
      assert.equal(uffd.poison(start, PAGE_SIZE).errno, 0);
      await assert.rejects(memory.load(start), fails("ERR_MEMORY_FAULT"));
      await memory.discard(start, PAGE_SIZE);
      assert.equal(uffd.copy(start, page.address, PAGE_SIZE).errno, 0);
      assert.equal(await memory.load(start), 7);
    });

    test("write protection stops a write, and shows in pages()", async () => {
      const { memory, uffd, start } = setUp();
      uffd.register(start, PAGES * PAGE_SIZE, { missing: true, writeProtect: true });
      uffd.zeropage(start, 2 * PAGE_SIZE);
      uffd.writeProtect(start, PAGE_SIZE, true);
      assert.deepEqual(memory.pages(start, 3 * PAGE_SIZE), [
        { resident: true, writeProtected: true },
        { resident: true, writeProtected: false },
        { resident: false, writeProtected: false },
      ]);
      const storing = memory.store(start, 9);
      memory.settle();
      assert.equal(uffd.read().length, 1);
      uffd.writeProtect(start, PAGE_SIZE, false);
      await storing;
      assert.equal(await memory.load(start), 9);
    });

    test("written() finds what was stored since it was last asked (WP_ASYNC)", async () => {
      const { memory, uffd, start } = setUp({ features: ["WP_ASYNC"] });
      uffd.register(start, PAGES * PAGE_SIZE, { missing: true, writeProtect: true });
      uffd.zeropage(start, PAGES * PAGE_SIZE);
      memory.written(start, PAGES * PAGE_SIZE, { protect: true });
      await memory.store(start + 3 * PAGE_SIZE, 1);
      const ranges = memory.written(start, PAGES * PAGE_SIZE, { protect: true });
      assert.deepEqual(ranges, [{ start: start + 3 * PAGE_SIZE, until: start + 4 * PAGE_SIZE }]);
      assert.deepEqual(memory.written(start, PAGES * PAGE_SIZE), []);
    });

    test("a fork's memory is served through the descriptor that its event carries", async () => {
      const { memory, uffd, start } = setUp({ features: ["EVENT_FORK"] });
      const forking = memory.fork();
      memory.settle();
      const [event] = uffd.read();
      assert.equal(event?.event, "fork");
      const child = await forking;
      const loading = child.load(start);
      child.settle();
      memory.settle();
      assert.equal(uffd.read().length, 0, "the parent's descriptor stays silent");
      memory.process.call("close", event?.event === "fork" ? event.ufd : -1);
      assert.equal(await loading, 0, "closing the last descriptor lets the load go on");
    });

    test("what can be known to be wrong is refused before the system is asked", () => {
      const { uffd, start, page } = setUp();
      const { address } = page;
      assert.throws(() => uffd.copy(start + 1, address, PAGE_SIZE), fails("ERR_UNALIGNED"));
      assert.throws(() => uffd.copy(start, address, PAGE_SIZE + 1), fails("ERR_UNALIGNED"));
      assert.throws(() => uffd.copy(start, address, 0), fails("ERR_OUT_OF_RANGE"));
      assert.throws(() => uffd.copy(start, address, 2 ** 52), fails("ERR_OUT_OF_RANGE"));
      assert.throws(() => uffd.copy(start, Number.NaN, PAGE_SIZE), fails("ERR_BAD_ARGUMENT"));
      assert.throws(() => uffd.copy("0" as unknown as number, address, PAGE_SIZE), fails("ERR_BAD_ARGUMENT"));
      assert.throws(() => uffd.wake(-PAGE_SIZE, PAGE_SIZE), fails("ERR_OUT_OF_RANGE"));
      assert.throws(() => uffd.register(start, PAGE_SIZE, {}), fails("ERR_BAD_ARGUMENT"));
      assert.throws(() => uffd.read(0), fails("ERR_OUT_OF_RANGE"));
      assert.throws(() => uffd.read(1e6), fails("ERR_OUT_OF_RANGE"));
      assert.throws(() => uffd.staging(0), fails("ERR_OUT_OF_RANGE"));
      assert.throws(() => uffd.staging(2 ** 45), fails("ERR_OUT_OF_RANGE"));
    });

    test("what has the wrong type is refused, not taken for something else", async () => {
      const { memory, uffd, start, page } = setUp();
      const wrong = fails("ERR_BAD_ARGUMENT");
      const nothing = null as unknown as object;
      assert.throws(() => uffd.register(start, PAGE_SIZE, nothing), wrong);
      assert.throws(() => uffd.register(start, PAGE_SIZE, undefined as unknown as object), wrong);
      assert.throws(() => uffd.copy(start, page.address, PAGE_SIZE, nothing), wrong);
      assert.throws(() => uffd.writeProtect(start, PAGE_SIZE, true, nothing), wrong);
      assert.throws(() => uffd.wait(Number.NaN), wrong);
      assert.throws(() => uffd.wait("1" as unknown as number), wrong);
      assert.throws(() => memory.map(PAGE_SIZE, nothing), wrong);
      assert.throws(() => memory.map(PAGE_SIZE, { kind: "hugh" as "huge" }), wrong);
      assert.throws(() => memory.protect(start, PAGE_SIZE, nothing), wrong);
      assert.throws(() => memory.openUserfaultfd({ ways: [] }), wrong);
      assert.throws(() => memory.openUserfaultfd({ ways: ["devise" as "device"] }), wrong);
      assert.throws(() => memory.openUserfaultfd({ features: ["SIGBUSS" as "SIGBUS"] }), wrong);
      assert.throws(() => openGuestHost("kernal" as "kernel"), wrong);
      await assert.rejects(memory.store(start, 256), fails("ERR_OUT_OF_RANGE"));
      assert.throws(() => memory.pages(PAGE_SIZE, 2 ** 46), fails("ERR_LIMIT"));
      // Nothing of that reached the system: no page has come, no thread stands anywhere.
      assert.ok(memory.pages(start, PAGES * PAGE_SIZE).every(({ resident }) => !resident));
    });

    test("a wait for ever is no call for ever in a process that has a deadline", () => {
      const { memory, uffd } = setUp();
      const { scratch } = memory.process;
      const asked: number[] = [];
      // Nothing for seven times, then a message: that is how a wait for ever ends.
      const ppoll = (timeout: number): number => {
        const forEver = timeout === 0;
        asked.push(forEver ? -1 : Number(scratch.view.getBigInt64(timeout - scratch.address, true)));
        if (asked.length === 8) scratch.view.setUint16(6, POLL.IN, true);
        return asked.length === 8 ? 1 : 0;
      };
      const watched = calling(memory.process, (_name, _fds, _count, timeout) => ppoll(timeout!));
      const there = new SystemUserfaultfd(implementation, watched, uffd.fd, 0n).wait(-1);
      // In the software implementation time passes at once, and a wait for ever is refused.
      assert.equal(there, implementation === "kernel");
      assert.deepEqual(asked, implementation === "kernel" ? Array(8).fill(1) : [-1]);
    });

    test("what only the system can know comes back as its errno, with operation and address", () => {
      const { memory, uffd, start } = setUp();
      const other = memory.openUserfaultfd();
      assert.throws(
        () => other.register(start, PAGE_SIZE, { missing: true }),
        (error) => fails("ERR_SYSCALL", ERRNO.EBUSY)(error) && (error as MinorfaultError).address === start,
      );
      assert.throws(
        () => uffd.register(start, PAGE_SIZE, { minor: true }),
        fails("ERR_SYSCALL", ERRNO.EINVAL),
      );
      assert.throws(() => uffd.writeProtect(start, PAGE_SIZE, true), fails("ERR_SYSCALL", ERRNO.ENOENT));
    });

    test("a feature that the system lacks is named", () => {
      const memory = open().spawn();
      assert.throws(
        () => memory.openUserfaultfd({ features: ["RWP"] }),
        (error) => {
          return fails("ERR_FEATURE_MISSING")(error) && /RWP/.test((error as Error).message);
        },
      );
    });

    test("when every way is refused, the error names each of them with its answer", () => {
      const process = open().system.spawnProcess();
      assert.throws(
        () => openUserfaultfd(implementation, denying(process), { ways: ["device", "syscall"] }),
        (error) => fails("ERR_UFFD_DENIED")(error) && /device: EACCES, syscall: EPERM/.test(String(error)),
      );
    });

    test("a duplicate keeps the context: only the last close lets the waiting go", async () => {
      const { memory, uffd, start } = setUp();
      const duplicate = uffd.duplicate();
      const loading = memory.load(start);
      memory.settle();
      uffd.close();
      uffd.close();
      assert.throws(() => uffd.read(), fails("ERR_CLOSED"));
      memory.settle();
      assert.equal(duplicate.read().length, 1);
      duplicate.close();
      assert.equal(await loading, 0);
    });

    test("an access that is given up leaves its thread, and others go on", async () => {
      const { memory, uffd, start } = setUp();
      const giving = new AbortController();
      const loading = memory.load(start, giving.signal);
      memory.settle();
      giving.abort();
      await assert.rejects(loading, { name: "AbortError" });
      assert.equal(
        await loadZero(memory, () => uffd.zeropage(start + PAGE_SIZE, PAGE_SIZE), start + PAGE_SIZE),
        0,
      );
    });
  });
}

async function loadZero(memory: SystemAddressSpace, fill: () => unknown, address: number): Promise<number> {
  const loading = memory.load(address);
  memory.settle();
  fill();
  return await loading;
}

/** The process, refusing to open anything in either way. */
function denying(process: Process): Process {
  return calling(process, (name) => (name === "openat" ? -ERRNO.EACCES : -ERRNO.EPERM));
}

/** The process with another answer to system calls. */
function calling(process: Process, call: (name: string, ...args: number[]) => number): Process {
  return new Proxy(process, {
    get: (target, property) =>
      property === "call" ? call : (Reflect.get(target, property, target) as unknown),
  });
}
