// `minorfault demo` as a user runs it: what it prints on each kind of guest, how it ends, and what it leaves behind.

import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import {
  closeSync,
  existsSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeSync,
} from "node:fs";
import { constants, tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { GUEST_KINDS } from "../../src/cli/demo/guest.ts";

const main = fileURLToPath(new URL("../../src/cli/main.js", import.meta.url));
const DEADLINE_MS = 60_000;
const ENVIRONMENT_EXIT = 3;

interface Ended {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

interface Running {
  readonly child: ChildProcess;
  /** Resolves when stderr says so. */
  says(what: RegExp): Promise<void>;
  readonly ended: Promise<Ended>;
}

function start(args: readonly string[], environment: NodeJS.ProcessEnv = {}): Running {
  const child = spawn(process.execPath, [main, "demo", ...args], {
    env: { ...process.env, NO_COLOR: "1", ...environment },
    stdio: ["ignore", "pipe", "pipe"],
    timeout: DEADLINE_MS,
    killSignal: "SIGKILL",
  });
  let stdout = "";
  let stderr = "";
  child.stdout.setEncoding("utf8").on("data", (text: string) => {
    stdout += text;
  });
  child.stderr.setEncoding("utf8").on("data", (text: string) => {
    stderr += text;
  });
  const ended = new Promise<Ended>((resolve) => {
    child.once("close", (code) => resolve({ code, stdout, stderr }));
  });
  return {
    child,
    ended,
    says: (what) =>
      new Promise((resolve, reject) => {
        const look = () => {
          if (what.test(stderr)) resolve();
        };
        child.stderr.on("data", look);
        void ended.then(() => reject(new Error(`it ended without saying ${what}: ${stderr}`)));
        look();
      }),
  };
}

interface Report {
  readonly guest: { readonly kind: string; readonly refused: readonly { readonly reason: string }[] };
  readonly image: Record<"byteLength" | "pages" | "pagesZero", number>;
  readonly samplePages: number;
  readonly restores: readonly (Record<string, number> & {
    readonly name: string;
    readonly faultsToldBy: string;
    readonly guestReadRight: boolean;
    readonly faultUs: { readonly count: number; readonly p50: number; readonly p99: number } | null;
  })[];
  readonly verdict: { readonly right: boolean; readonly pagesChecked: number; readonly wrongPages: number };
}

for (const kind of GUEST_KINDS) {
  test(`demo --guest ${kind} restores 16 MiB three ways, and every page is right`, async (t) => {
    const { code, stdout, stderr } = await start(["--size", "16MiB", "--json", "--guest", kind]).ended;
    if (code === ENVIRONMENT_EXIT) {
      const { error } = JSON.parse(stdout) as { error: { message: string } };
      return t.skip(error.message);
    }
    assert.equal(stderr, "");
    assert.equal(code, 0);
    const report = JSON.parse(stdout) as Report;
    assert.equal(report.guest.kind, kind);
    assert.equal(report.image.pages, 4096);
    assert.deepEqual(report.verdict, { right: true, pagesChecked: 3 * 4096, wrongPages: 0 });
    assert.deepEqual(
      report.restores.map(({ name, faults, faultsToldBy, guestReadRight }) => ({
        name,
        faults,
        faultsToldBy,
        guestReadRight,
      })),
      [
        { name: "eager", faults: 0, faultsToldBy: "residency", guestReadRight: true },
        { name: "page-by-page", faults: 4096, faultsToldBy: "residency", guestReadRight: true },
        { name: "fault-around", faults: 4096 / 16, faultsToldBy: "residency", guestReadRight: true },
      ],
    );
    for (const restore of report.restores) {
      const {
        bytesMoved = 0,
        bytesZeroed = 0,
        firstByteMs = 0,
        sampleTouchedMs = 0,
        allTouchedMs = 0,
      } = restore;
      assert.equal(bytesMoved + bytesZeroed, report.image.byteLength, `${restore.name}: all bytes`);
      assert.ok(bytesZeroed >= report.image.pagesZero * 4096, `${restore.name}: zeros are not moved`);
      assert.ok(
        0 < firstByteMs && firstByteMs < sampleTouchedMs && sampleTouchedMs < allTouchedMs,
        restore.name,
      );
      assert.equal(restore.faultUs?.count ?? 0, restore.faults);
    }
    const [eager, lazy, around] = report.restores;
    assert.equal(eager?.residentPagesAfterSample, 4096);
    assert.equal(lazy?.residentPagesAfterSample, report.samplePages + 1);
    assert.equal(around?.residentPagesAfterSample, (around?.faultsUntilSample ?? 0) * 16);
  });
}

test("demo on a pipe prints the table on stdout and plain progress on stderr, without escape codes", async () => {
  const { code, stdout, stderr } = await start(["--size", "4MiB", "--seed", "11"]).ended;
  assert.equal(code, 0, stderr);
  assert.match(stdout, /first byte read/);
  assert.match(stdout, /Every page is right: 3 072 pages checked by SHA-256, 0 wrong/);
  assert.match(stdout, /again: minorfault demo --size 4MiB --seed 11 --guest/);
  assert.match(stderr, /page by page: touching everything, 1 024 pages/);
  assert.ok(!`${stdout}${stderr}`.includes("\x1b"));
});

test("demo --quiet prints nothing on stderr", async () => {
  const { code, stderr } = await start(["--size", "1MiB", "--quiet"]).ended;
  assert.deepEqual({ code, stderr }, { code: 0, stderr: "" });
});

test("bad options are usage errors: exit 2, a message that says what is right, nothing on stdout", async () => {
  const cases: readonly (readonly [args: string[], message: RegExp])[] = [
    [["--size", "5"], /'5' is invalid.*such as 256MiB/],
    [["--size", "999TB"], /such as 64KiB/],
    [["--size", "100000GiB"], /needs .* of memory.*are available/],
    [["--guest", "horse"], /auto, kvm, process, software/],
    [["--fault-around", "3"], /power of two from 1 to 512/],
    [["--fault-around", "1024"], /power of two from 1 to 512/],
    [["--seed", "-1"], /integer from 0 to 4294967295/],
    [["more"], /too many arguments/],
  ];
  for (const [args, message] of cases) {
    const { code, stdout, stderr } = await start(args).ended;
    assert.equal(code, 2, args.join(" "));
    assert.equal(stdout, "");
    assert.match(stderr, message);
  }
});

test("a reader that has seen enough is no error", async () => {
  const demo = start(["--size", "1MiB", "--json"]);
  demo.child.stdout?.destroy();
  assert.deepEqual(await demo.ended, { code: 0, stdout: "", stderr: "" });
});

test("a page that is changed behind the demo's back is found: one wrong page, exit 1", async (t) => {
  if (process.platform !== "linux") return t.skip("needs /proc");
  const demo = start(["--size", "64MiB", "--guest", "process", "--fault-around", "512"]);
  // All pages are there before the eager guest starts: what is changed now, nobody repairs.
  const outcome = await Promise.race([demo.says(/eager: touching a random/).then(() => "ready"), demo.ended]);
  if (typeof outcome !== "string") return t.skip(outcome.stderr);
  const [guest] = childrenOf(demo.child.pid ?? 0);
  assert.ok(guest !== undefined, "the guest is a child of the demo");
  spoilLastPage(guest, 64 * 2 ** 20);
  const { code, stdout, stderr } = await demo.ended;
  assert.equal(code, 1, stderr);
  assert.match(stdout, /1 of 49 152 pages are wrong/);
});

const MOMENTS: readonly (readonly [signal: "SIGINT" | "SIGTERM", moment: RegExp, guest: string])[] = [
  ["SIGINT", /image: reading and hashing/, "auto"],
  ["SIGINT", /image: warming up/, "auto"],
  ["SIGINT", /eager: copying everything/, "auto"],
  ["SIGINT", /page by page: touching everything/, "auto"],
  ["SIGTERM", /fault around: touching everything/, "auto"],
  ["SIGINT", /fault around: checking/, "auto"],
  ["SIGINT", /page by page: touching everything/, "software"],
];

for (const [signal, moment, guest] of MOMENTS) {
  test(`${signal} at "${moment.source}" (guest ${guest}) leaves no process and no file behind`, async (t) => {
    if (process.platform !== "linux") return t.skip("needs /proc");
    const folder = mkdtempSync(join(tmpdir(), "minorfault-demo-"));
    try {
      const demo = start(["--size", "128MiB", "--guest", guest], { TMPDIR: folder });
      await demo.says(moment);
      const guests = childrenOf(demo.child.pid ?? 0);
      demo.child.kill(signal);
      const { code, stdout, stderr } = await demo.ended;
      assert.equal(code, 128 + constants.signals[signal], stderr);
      assert.equal(stdout, "");
      assert.match(stderr, new RegExp(`ended by ${signal}`));
      assert.deepEqual(
        guests.filter((pid) => existsSync(`/proc/${pid}`)),
        [],
      );
      assert.deepEqual(readdirSync(folder), []);
    } finally {
      rmSync(folder, { recursive: true });
    }
  });
}

test("where the kernel can't be used, the software implementation is, and both outputs say why", async () => {
  // The simplest way to be on another system: every check of the platform sees it.
  const elsewhere = 'Object.defineProperty(process,"platform",{value:"sunos"})';
  const environment = { NODE_OPTIONS: `--import=data:text/javascript,${encodeURIComponent(elsewhere)}` };
  const { code, stdout, stderr } = await start(["--size", "1MiB"], environment).ended;
  assert.equal(code, 0, stderr);
  assert.match(stdout, /guest +the software implementation/);
  assert.match(stdout, /not a KVM machine: .*Linux on x64/);
  assert.match(stdout, /not a process: .*Linux on x64/);
  assert.match(stderr, /guest is not kvm: /);
  const asked = await start(["--size", "1MiB", "--guest", "kvm", "--json"], environment).ended;
  assert.equal(asked.code, ENVIRONMENT_EXIT);
  assert.equal((JSON.parse(asked.stdout) as { error: { code: string } }).error.code, "ERR_UNSUPPORTED_HOST");
});

test("a guest that is killed ends the demo with an error that says so, not with a hang", async (t) => {
  if (process.platform !== "linux") return t.skip("needs /proc");
  const demo = start(["--size", "128MiB"]);
  await demo.says(/page by page: touching everything/);
  const guests = childrenOf(demo.child.pid ?? 0);
  if (guests.length === 0) return t.skip("the software guest is no process");
  for (const pid of guests) process.kill(pid, "SIGKILL");
  const { code, stdout, stderr } = await demo.ended;
  assert.equal(code, 1);
  assert.equal(stdout, "");
  assert.match(
    stderr,
    /ended(?: during a walk|, \w+ can(?:not)? be called in it).*Look for what killed it.*code: ERR_CLOSED/s,
  );
});

test("a demo that is killed takes its guest along", async (t) => {
  if (process.platform !== "linux") return t.skip("needs /proc");
  const demo = start(["--size", "128MiB"]);
  await demo.says(/page by page: touching everything/);
  const guests = childrenOf(demo.child.pid ?? 0);
  demo.child.kill("SIGKILL");
  assert.equal((await demo.ended).code, null);
  const until = performance.now() + 5000;
  // Nobody tells us when the kernel has buried them.
  while (guests.some(isRunning)) assert.ok(performance.now() < until, `guests ${guests} live on`);
});

/** Processes whose parent is this one. */
function childrenOf(pid: number): number[] {
  return readdirSync(`/proc/${pid}/task`).flatMap((tid) => {
    try {
      return readFileSync(`/proc/${pid}/task/${tid}/children`, "utf8").split(" ").filter(Boolean).map(Number);
    } catch {
      // A thread that has ended since; what it had started is another thread's now.
      return [];
    }
  });
}

function isRunning(pid: number): boolean {
  try {
    return !/\) [ZX] /.test(readFileSync(`/proc/${pid}/stat`, "utf8"));
  } catch {
    return false;
  }
}

/** Changes one byte of the last page of the guest's memory: the private anonymous mapping of that size. */
function spoilLastPage(pid: number, byteLength: number): void {
  const ranges = readFileSync(`/proc/${pid}/maps`, "utf8")
    .split("\n")
    .map((line) => /^([0-9a-f]+)-([0-9a-f]+) rw-p/.exec(line))
    .map(
      (match) => [Number.parseInt(match?.[1] ?? "0", 16), Number.parseInt(match?.[2] ?? "0", 16)] as const,
    );
  const memory = ranges.find(([start, until]) => until - start === byteLength);
  assert.ok(memory !== undefined, "the guest's memory is among its mappings");
  const file = openSync(`/proc/${pid}/mem`, "r+");
  // A byte that a file is unlikely to hold there; were it there already, the test would fail, not pass.
  writeSync(file, Buffer.of(0xa7), 0, 1, memory[1] - 7);
  closeSync(file);
}
