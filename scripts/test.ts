// `npm test`: runs every test file by node's test runner, each in a process of its own, as a stuck fault needs.
//
// On the way in it installs from Debian what tests need and this machine lacks, when it may (root and apt-get);
// what still can't run is skipped by its test with the reason. Ends with node's own summary.

import { spawnSync } from "node:child_process";
import { existsSync, readdirSync, rmSync, statSync, writeFileSync } from "node:fs";
import { join, relative } from "node:path";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("../..", import.meta.url));
const tests = join(root, "dist", "test");
/** A test file that has not ended by then is stuck. */
const FILE_DEADLINE_MS = 600_000;

/** Commands that tests use, and the Debian package of each. */
const PACKAGES: Readonly<Record<string, string>> = {
  gcc: "gcc libc6-dev linux-libc-dev",
  objdump: "binutils",
  chromium: "chromium",
  curl: "curl",
  zstd: "zstd",
  zsh: "zsh",
  fish: "fish",
  nginx: "nginx-light",
  promtool: "prometheus",
  memcached: "memcached",
  "qemu-system-x86_64": "qemu-system-x86 qemu-utils busybox-static linux-image-cloud-amd64 cpio",
  "swift-proxy-server": "swift-proxy",
  "swift-account-server": "swift-account",
  "swift-container-server": "swift-container",
  "swift-object-server": "swift-object",
};

/** Debian asks this file whether a daemon may be started by its package. Tests start their own. */
const POLICY = "/usr/sbin/policy-rc.d";

function hasCommand(name: string): boolean {
  // Not by running it: some of these are daemons that know no --version.
  return (process.env.PATH ?? "").split(":").some((folder) => existsSync(join(folder, name)));
}

function installMissing(): void {
  const missing = Object.keys(PACKAGES).filter((command) => !hasCommand(command));
  if (missing.length === 0 || process.platform !== "linux") return;
  if (process.getuid?.() !== 0 || !hasCommand("apt-get")) {
    console.error(`test: ${missing.join(", ")} missing and not installable here; what needs them is skipped`);
    return;
  }
  const packages = missing.flatMap((command) => PACKAGES[command]?.split(" ") ?? []);
  console.error(`test: installing ${packages.join(" ")}`);
  const environment = { ...process.env, DEBIAN_FRONTEND: "noninteractive" };
  const isPolicyOurs = forbidDaemons();
  try {
    for (const step of [
      ["update", "-q"],
      ["install", "-qy", "--no-install-recommends", ...packages],
    ]) {
      spawnSync("apt-get", step, { stdio: ["ignore", 2, 2], env: environment });
    }
  } finally {
    if (isPolicyOurs) rmSync(POLICY, { force: true });
  }
}

/** Keeps packages from starting what they bring. False where somebody has a policy already. */
function forbidDaemons(): boolean {
  try {
    writeFileSync(POLICY, "#!/bin/sh\nexit 101\n", { flag: "wx", mode: 0o755 });
    return true;
  } catch {
    return false;
  }
}

function testFiles(folder: string): string[] {
  return (
    readdirSync(folder)
      .map((name) => join(folder, name))
      .flatMap((path) => (statSync(path).isDirectory() ? testFiles(path) : [path]))
      .filter((path) => path.endsWith(".test.js"))
      // A build leaves behind what has been deleted since; only what has a source is a test.
      .filter((path) => statSync(sourceOf(path), { throwIfNoEntry: false }) !== undefined)
      .sort()
  );
}

function sourceOf(path: string): string {
  return join(root, relative(join(root, "dist"), path)).replace(/\.js$/, ".ts");
}

installMissing();
const wanted = process.argv.slice(2);
const files = testFiles(tests).filter(
  (file) => wanted.length === 0 || wanted.some((part) => file.includes(part)),
);
if (files.length === 0) {
  console.error(`test: no test file matches ${wanted.join(" ")}`);
  process.exit(2);
}
const reporter = ["--test-reporter=spec", "--test-reporter-destination=stdout"];
// One file after the other: what they measure and wait for does not go well with a second one on two cores.
const options = ["--test", "--test-concurrency=1", `--test-timeout=${FILE_DEADLINE_MS}`, ...reporter];
const result = spawnSync(process.execPath, [...options, ...files], { cwd: root, stdio: "inherit" });
process.exit(result.status ?? 1);
