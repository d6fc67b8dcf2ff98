// The doctor on this host, on hosts that we only describe, and as a user without privileges.

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import {
  changesFor,
  examineHost,
  explainWay,
  type HostReport,
  hostExitCode,
  usesOf,
} from "../../src/uffd/kernel/index.ts";

const main = fileURLToPath(new URL("../../src/cli/main.js", import.meta.url));

const complete: HostReport = {
  platform: "linux",
  arch: "x64",
  kernel: "6.18.0",
  node: "20.20.2",
  pageSize: 4096,
  native: { works: true },
  ways: [
    { way: "device", works: true, answer: "OK" },
    { way: "syscall", works: true, answer: "OK" },
    { way: "user-mode-only", works: true, answer: "OK" },
  ],
  features: ["WP_ASYNC", "MOVE"],
  missingFeatures: [],
  memory: [],
  hugePages: { total: 8, free: 8 },
  transparentHugePages: "madvise",
  kvm: { works: true },
  privileges: { uid: 0, ptrace: true, seccomp: "off", noNewPrivileges: false, unprivilegedUserfaultfd: "0" },
  container: "none seen",
  limits: {
    openFiles: 1024,
    mapCountMax: 65530,
    memoryBytes: 2 ** 34,
    memoryFreeBytes: 2 ** 33,
    memoryCgroupBytes: undefined,
    viewBytes: 2 ** 32,
  },
};
const refused = (answer: string): HostReport["ways"] => [
  { way: "device", works: false, answer: "ENOENT" },
  { way: "syscall", works: false, answer },
  { way: "user-mode-only", works: false, answer },
];

test("hostExitCode() is 0 with everything, 1 with restrictions, 3 without a userfaultfd", () => {
  assert.equal(hostExitCode(complete), 0);
  assert.equal(hostExitCode({ ...complete, missingFeatures: ["MOVE"] }), 1);
  const userModeOnly: HostReport = {
    ...complete,
    ways: [...refused("EPERM").slice(0, 2), { way: "user-mode-only", works: true, answer: "OK" }],
  };
  assert.equal(hostExitCode(userModeOnly), 1);
  assert.equal(hostExitCode({ ...complete, ways: refused("EPERM") }), 3);
});

test("usesOf() offers the software implementation on every host, and says why the kernel's is not there", () => {
  const mac: HostReport = {
    ...complete,
    platform: "darwin",
    native: { works: false, reason: "no Linux" },
    ways: [],
    features: [],
  };
  const uses = usesOf(mac);
  assert.equal(uses[0]?.verdict, "yes");
  assert.equal(uses[1]?.verdict, "no");
  assert.match(uses[1]?.why ?? "", /darwin/);
  assert.equal(hostExitCode(mac), 3);
});

test("changesFor() names the container's remedy when a seccomp filter refuses", () => {
  const docker: HostReport = {
    ...complete,
    ways: refused("EPERM"),
    privileges: { ...complete.privileges, seccomp: "filter", ptrace: false },
  };
  assert.ok(changesFor(docker).some(({ how }) => how.includes("seccomp")));
  assert.match(explainWay({ way: "user-mode-only", works: false, answer: "EPERM" }, docker), /seccomp/);
  // The device is there, and its owner may not use it: no permission of the file would change that.
  const device = { way: "device", works: false, answer: "EPERM" } as const;
  assert.match(explainWay(device, docker), /device rules or the seccomp filter/);
  const withDevice = { ...docker, ways: [device, ...docker.ways.slice(1)] };
  assert.ok(!changesFor(withDevice).some(({ how }) => how.includes("setfacl")));
  assert.deepEqual(changesFor(complete), []);
});

test("minorfault doctor --json prints the report that examineHost() gives, and its exit code", () => {
  const { stdout, status } = spawnSync(process.execPath, [main, "doctor", "--json"], { encoding: "utf8" });
  const printed = JSON.parse(stdout) as HostReport & { exitCode: number };
  const host = examineHost();
  assert.deepEqual(printed.features, host.features);
  assert.deepEqual(printed.ways, host.ways);
  assert.equal(status, printed.exitCode);
  assert.equal(status, hostExitCode(host));
});

test("minorfault doctor without privileges names what is refused and how to change it", (t) => {
  if (process.getuid?.() !== 0 || !existsSync("/usr/bin/setpriv")) return t.skip("needs root and setpriv");
  const drop = ["--reuid=65534", "--regid=65534", "--clear-groups", "--bounding-set=-all", process.execPath];
  const readable = spawnSync("setpriv", [...drop, "-e", `require("fs").accessSync(${JSON.stringify(main)})`]);
  if (readable.status !== 0) return t.skip("an unprivileged user can't read this checkout");
  const { stdout, status } = spawnSync("setpriv", [...drop, main, "doctor"], { encoding: "utf8" });
  assert.notEqual(status, 0);
  assert.match(stdout, /device +no +\/dev\/userfaultfd/);
  assert.match(stdout, /setfacl|sysctl/);
});
