// Node's own traps: what a runtime does with buffers that other buffers do not mind. Each in a process of its own with
// a deadline, since what goes wrong here is a process that never ends.

import assert from "node:assert/strict";
import { readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { test } from "node:test";
import { skipUnlessUserfaultfd as skip } from "../../linux/host.ts";
import { countWrong, numberedFile, ownFolder, PACKAGE, PAGE, runChild, say } from "./files.ts";

const folder = ownFolder();
const PAGES = 4096;
const path = numberedFile(folder, "numbers", PAGES);
const PRIVATE = `await open(path, { mode: "private" })`;
const args = [path, folder];

test("files: all four threads of libuv's pool stand in faults while the pager reads the file", {
  skip,
}, () => {
  const program = `
    const memory = ${PRIVATE};
    const bytes = new Uint8Array(memory.buffer);
    const piece = bytes.length / 8;
    // Written from missing pages: the kernel faults in write(2), in a thread of the pool.
    const copies = await Promise.all(Array.from({ length: 8 }, async (_, i) => {
      const copy = args[0] + "/copy" + i;
      const file = await fs.promises.open(copy, "w");
      const part = bytes.subarray(i * piece, (i + 1) * piece);
      for (let done = 0; done < part.length; ) done += (await file.write(part, done)).bytesWritten;
      await file.close();
      return copy;
    }));
    const whole = Buffer.concat(copies.map((copy) => fs.readFileSync(copy)));
    say(whole.equals(fs.readFileSync(path)), memory.statistics().faults > 0);
    await memory.close();
    // And read into missing pages.
    const target = ${PRIVATE};
    const into = new Uint8Array(target.buffer);
    await Promise.all(copies.map(async (copy, i) => {
      const file = await fs.promises.open(copy, "r");
      const part = into.subarray(i * piece, (i + 1) * piece);
      for (let done = 0; done < part.length; ) done += (await file.read(part, done, part.length - done, done)).bytesRead;
      await file.close();
    }));
    say(Buffer.from(target.buffer).equals(whole));
    await target.close();
  `;
  assert.equal(say(program, { args }), "true true\ntrue");
});

test("crypto, zlib and text take a lazy buffer, in the pool and out of it", { skip }, () => {
  const program = `
    import { createHash, webcrypto } from "node:crypto";
    import { gzip, gunzipSync, deflateSync, inflateSync } from "node:zlib";
    import { promisify } from "node:util";
    const plain = fs.readFileSync(path);
    const hex = (bytes) => createHash("sha256").update(bytes).digest("hex");
    const fresh = async (use) => {
      const memory = ${PRIVATE};
      try { return await use(new Uint8Array(memory.buffer)); } finally { await memory.close(); }
    };
    say(
      await fresh(hex) === hex(plain),
      Buffer.from(await fresh((bytes) => webcrypto.subtle.digest("SHA-256", bytes))).toString("hex") === hex(plain),
      gunzipSync(await fresh((bytes) => promisify(gzip)(bytes, { level: 1 }))).equals(plain),
      inflateSync(await fresh((bytes) => deflateSync(bytes, { level: 1 }))).equals(plain),
      await fresh((bytes) => Buffer.from(bytes).toString("latin1")) === plain.toString("latin1"),
    );
  `;
  assert.equal(say(program, { args }), "true true true true true");
});

test("sockets: a lazy buffer is sent, and received into", { skip }, () => {
  const program = `
    import net from "node:net";
    const plain = fs.readFileSync(path);
    const memory = ${PRIVATE};
    const server = net.createServer((socket) => socket.end(new Uint8Array(memory.buffer))).listen(0, "127.0.0.1");
    await new Promise((done) => server.once("listening", done));
    const target = ${PRIVATE};
    const into = Buffer.from(target.buffer);
    let got = 0;
    await new Promise((done, fail) => {
      const socket = net.connect({
        port: server.address().port, host: "127.0.0.1",
        onread: { buffer: into.subarray(0, 65536), callback: (count, chunk) => {
          if (!plain.subarray(got, got + count).equals(chunk.subarray(0, count))) fail(new Error("wrong at " + got));
          got += count;
          return true;
        } },
      });
      socket.on("error", fail).on("end", done);
    });
    server.close();
    say(got === plain.length);
    await memory.close();
    await target.close();
  `;
  assert.equal(say(program, { args }), "true");
});

test("structuredClone and postMessage copy; nothing takes the bytes away", { skip }, () => {
  const program = `
    import { MessageChannel } from "node:worker_threads";
    const plain = fs.readFileSync(path);
    const memory = ${PRIVATE};
    const { buffer } = memory;
    say(Buffer.from(structuredClone(buffer)).equals(plain));
    // Node 20 copies what may not be transferred, 22 refuses; 24 moves it, and the memory has a new buffer.
    const outcome = (act) => {
      try { const result = act(); return Buffer.from(result).equals(plain) ? (buffer.byteLength ? "copied" : "moved") : "WRONG"; }
      catch (error) { return error.name === "DataCloneError" || error.code === "ERR_BAD_ARGUMENT" ? "refused" : String(error); }
    };
    const attempts = [() => structuredClone(buffer, { transfer: [buffer] })];
    if (buffer.transfer) attempts.push(() => buffer.transfer(), () => buffer.transferToFixedLength());
    const expected = { 20: ["copied"], 22: ["refused"] }[process.versions.node.split(".")[0]] ?? ["moved", "refused"];
    say(attempts.every((act) => expected.includes(outcome(act))));
    const { port1, port2 } = new MessageChannel();
    try {
      const { buffer } = memory;
      port1.postMessage(buffer, [buffer]);
      const { promise, resolve } = (() => { let resolve; return { promise: new Promise((r) => { resolve = r; }), resolve }; })();
      port2.once("message", resolve);
      if (!Buffer.from(await promise).equals(plain)) say("WRONG");
    } catch (error) {
      if (error.name !== "DataCloneError") throw error;
    }
    port1.close();
    say(memory.buffer.byteLength === plain.length && Buffer.from(memory.buffer).equals(plain));
    await memory.close();
  `;
  assert.equal(say(program, { args }), "true\ntrue\ntrue");
});

test("a worker is terminated in the middle of faults", { skip }, () => {
  // Three of them: how long it takes at best is ours, what comes on top is the machine's.
  const program = `
    let took = Infinity;
    let wrong = 0;
    for (let round = 0; round < 3; round++) {
    const memory = ${PRIVATE};
    const worker = new Worker(\`
      const { parentPort, workerData } = require("node:worker_threads");
      import(workerData.package).then(({ attach }) => {
        const bytes = new Uint8Array(attach(workerData.handle).buffer);
        parentPort.postMessage("runs");
        for (let sum = 0, at = 0; ; at = (at + 4096 * 17) % bytes.length) sum += bytes[at];
      });\`, { eval: true, execArgv: [], workerData: { package: ${JSON.stringify(PACKAGE)}, handle: memory.share() } });
    await new Promise((done) => worker.once("message", done));
    const start = performance.now();
    await worker.terminate();
    took = Math.min(took, performance.now() - start);
    if (new Uint8Array(memory.buffer)[4096 * 4000] !== fs.readFileSync(path)[4096 * 4000]) wrong++;
    await memory.close();
    }
    say(took < 100 ? "at once" : took, wrong);
  `;
  assert.equal(say(program, { args }), '"at once" 0');
});

/** A memory and a worker that walks in it for ever, and cries out when a page is not what the file says. */
const STUCK = `
  const memory = ${PRIVATE};
  const stuck = (async () => {
    const worker = new Worker(\`
      const { parentPort, workerData } = require("node:worker_threads");
      import(workerData.package).then(({ attach }) => {
        const bytes = new Uint8Array(attach(workerData.handle).buffer);
        parentPort.postMessage("runs");
        for (let at = 0; ; at = (at + 4096 * 17) % bytes.length) {
          if (new DataView(bytes.buffer).getUint32(at & -4096, true) !== (((at >>> 12) * 2654435761 + 12345) >>> 0)) {
            require("node:fs").writeSync(1, "SILENT ZEROS\\\\n");
          }
        }
      });\`, { eval: true, execArgv: [], workerData: { package: ${JSON.stringify(PACKAGE)}, handle: memory.share() } });
    await new Promise((done) => worker.once("message", done));
    return worker;
  })();
`;

for (const [name, end, status] of [
  ["process.exit()", "process.exit(7);", 7],
  ["process.exitCode and process.exit()", "process.exitCode = 9; process.exit();", 9],
  ["the loop running dry", "(await stuck).unref(); process.exitCode = 5;", 5],
] as const) {
  test(`the process ends with faults pending, and nobody reads zeros: ${name}`, { skip }, () => {
    for (let round = 0; round < 3; round++) {
      const program = `${STUCK} await stuck; process.stderr.write(String(Date.now())); ${end}`;
      const result = runChild(program, { args });
      const took = Date.now() - Number(result.stderr);
      assert.deepEqual([result.status, result.signal], [status, null], result.stderr);
      assert.equal(result.stdout, "");
      assert.ok(took < 5000, `it took ${took} ms to end`);
    }
  });
}

test("an uncaught error ends the process with its message; waiting threads are let go, and are stopped", {
  skip,
}, () => {
  const result = runChild(`${STUCK} await stuck; throw new Error("on purpose");`, { args });
  assert.deepEqual([result.status, result.signal], [1, null]);
  assert.match(result.stderr, /on purpose/);
});

test("a memory is closed under threads that are using it: they read zeros and go on", { skip }, () => {
  const program = `
    const memory = ${PRIVATE};
    const worker = new Worker(\`
      const { parentPort, workerData } = require("node:worker_threads");
      import(workerData.package).then(({ attach }) => {
        const bytes = new Uint8Array(attach(workerData.handle).buffer);
        parentPort.postMessage("runs");
        // Ends when the whole memory has become zeros.
        for (let at = 0, zeros = 0; zeros < ${PAGES}; at = (at + 4096) % bytes.length) zeros = bytes[at] === 0 ? zeros + 1 : 0;
        parentPort.postMessage("zeros");
      });\`, { eval: true, execArgv: [], workerData: { package: ${JSON.stringify(PACKAGE)}, handle: memory.share() } });
    const said = [];
    worker.on("message", (word) => said.push(word));
    while (said.length < 1) await new Promise(setImmediate);
    await memory.close();
    while (said.length < 2) await new Promise(setImmediate);
    say(said);
  `;
  assert.equal(say(program, { args }), '["runs","zeros"]');
});

test("a worker that has opened a memory ends: others read zeros, nothing hangs", { skip }, () => {
  const program = `
    const owner = new Worker(\`
      const { parentPort, workerData } = require("node:worker_threads");
      import(workerData.package).then(async ({ open }) => {
        const memory = await open(workerData.path, { mode: "private" });
        parentPort.postMessage(memory.share());
        parentPort.once("message", () => process.exit());
      });\`, { eval: true, execArgv: [], workerData: { package: ${JSON.stringify(PACKAGE)}, path } });
    const handle = await new Promise((done) => owner.once("message", done));
    const bytes = new Uint8Array(attach(handle).buffer);
    const first = bytes[0];
    const ended = new Promise((done) => owner.once("exit", done));
    owner.postMessage("end");
    await ended;
    say(first === fs.readFileSync(path)[0], bytes[0], bytes[4096 * 100]);
  `;
  assert.equal(say(program, { args }), "true 0 0");
});

test("a worker that has opened a memory, and walks in it, is terminated", { skip }, () => {
  const program = `
    const owner = new Worker(\`
      const { parentPort, workerData } = require("node:worker_threads");
      import(workerData.package).then(async ({ open }) => {
        const memory = await open(workerData.path, { mode: "private", budget: "4MiB" });
        const bytes = new Uint8Array(memory.buffer);
        parentPort.postMessage("walks");
        for (let sum = 0, at = 0; ; at = (at + 4096 * 17) % bytes.length) sum += bytes[at];
      });\`, { eval: true, execArgv: [], workerData: { package: ${JSON.stringify(PACKAGE)}, path } });
    await new Promise((done) => owner.once("message", done));
    await owner.terminate();
    say("ended");
  `;
  assert.equal(say(program, { args }), '"ended"');
});

test("garbage collection, heap snapshots and inspection do not mind a buffer of missing pages", {
  skip,
}, () => {
  const program = `
    import { getHeapSnapshot } from "node:v8";
    import { inspect } from "node:util";
    const memory = ${PRIVATE};
    let view = new Uint8Array(memory.buffer);
    for (let i = 0; i < 5; i++) { gc(); await new Promise(setImmediate); }
    for await (const piece of getHeapSnapshot()) piece.length;
    const before = memory.resident().pages;
    inspect(view);
    say(before, memory.resident().pages < 64, view[4096 * 9] === fs.readFileSync(path)[4096 * 9]);
    await memory.close();
  `;
  assert.equal(say(program, { args, nodeArgs: ["--expose-gc"] }), "0 true true");
});

test("a child process can be started while a memory is open, and does not have it", { skip }, () => {
  const program = `
    import { execFileSync } from "node:child_process";
    const memory = ${PRIVATE};
    say(execFileSync("echo", ["hello"]).toString().trim(), new Uint8Array(memory.buffer)[0] === fs.readFileSync(path)[0]);
    await memory.close();
  `;
  assert.equal(say(program, { args }), '"hello" true');
});

const UNPRIVILEGED = [
  "setpriv",
  "--reuid=65534",
  "--regid=65534",
  "--clear-groups",
  "--inh-caps=-all",
  "--bounding-set=-all",
];

test("unprivileged: a system call on a missing page is EFAULT, after prefetch or by read it works", {
  skip,
}, (context) => {
  const program = `
    const memory = ${PRIVATE};
    const bytes = new Uint8Array(memory.buffer);
    const sink = fs.openSync("/dev/null", "w");
    const zero = fs.openSync("/dev/zero", "r");
    const outcome = (act) => { try { return act(); } catch (error) { return error.code; } };
    // write(2) to /dev/null never looks at the bytes; read(2) has to store them.
    say(memory.isUserModeOnly, outcome(() => fs.readSync(zero, bytes, 4096 * 50, 4096)));
    let took = Infinity;
    for (const page of [90, 100, 110]) {
      const start = performance.now();
      const late = await new Promise((done) => fs.read(zero, bytes, 4096 * page, 4096, 0, (error) => done(error?.code)));
      took = Math.min(took, performance.now() - start);
      if (late !== "EFAULT") say(page, late);
    }
    say(took < 100 ? "at once" : took);
    await memory.prefetch(4096 * 50, 4096);
    say(outcome(() => fs.readSync(zero, bytes, 4096 * 50, 4096)));
    say(Buffer.from(await memory.read(4096 * 60, 4)).readUInt32LE(0) === fs.readFileSync(path).readUInt32LE(4096 * 60));
    say(bytes[4096 * 70] === fs.readFileSync(path)[4096 * 70]);
    await memory.close();
  `;
  const readable = runChild("say(1)", { wrapper: UNPRIVILEGED });
  if (readable.status !== 0) {
    context.skip(
      `setpriv or reading the build as nobody does not work here: ${readable.stderr.slice(0, 200)}`,
    );
    return;
  }
  const readablePath = numberedFile(tmpdir(), `minorfault-trap-${process.pid}`, 128);
  try {
    const said = say(program, { args: [readablePath], wrapper: UNPRIVILEGED });
    assert.equal(said, 'true "EFAULT"\n"at once"\n4096\ntrue\ntrue');
  } finally {
    rmSync(readablePath);
  }
});

test("the file itself has not been changed by any of this", { skip }, () => {
  assert.equal(countWrong(new Uint8Array(readFileSync(path)).buffer), 0);
  assert.equal(PAGES * PAGE, readFileSync(path).length);
});
