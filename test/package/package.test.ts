// The package as its users get it: packed, installed without scripts into an empty folder, every subpath imported.

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("../../..", import.meta.url));
const folder = mkdtempSync(join(tmpdir(), "minorfault-package-"));
after(() => rmSync(folder, { recursive: true, force: true }));

interface Manifest {
  readonly exports: Readonly<Record<string, string | { readonly types: string; readonly default: string }>>;
  readonly scripts: Readonly<Record<string, string>>;
  readonly dependencies: Readonly<Record<string, string>>;
  readonly devDependencies: Readonly<Record<string, string>>;
}
const manifest = JSON.parse(readFileSync(join(root, "package.json"), "utf8")) as Manifest;

function npm(...args: string[]): { stdout: string; stderr: string; status: number | null } {
  return spawnSync("npm", args, { cwd: folder, encoding: "utf8", timeout: 120_000 });
}

test("the manifest names types first, exact versions, and no install script", () => {
  for (const target of Object.values(manifest.exports)) {
    if (typeof target !== "string") assert.deepEqual(Object.keys(target), ["types", "default"]);
  }
  for (const version of Object.values({ ...manifest.dependencies, ...manifest.devDependencies })) {
    assert.match(version, /^\d+\.\d+\.\d+$/);
  }
  for (const script of ["install", "preinstall", "postinstall", "prepare"]) {
    assert.equal(manifest.scripts[script], undefined, script);
  }
});

test("the packed package installs without scripts, and every subpath can be imported", (t) => {
  // The build is there (this file is part of it), so packing need not make another.
  const packed = npm("pack", root, "--ignore-scripts", "--silent");
  assert.equal(packed.status, 0, packed.stderr);
  const tarball = readdirSync(folder).find((name) => name.endsWith(".tgz"));
  assert.ok(tarball !== undefined);
  writeFileSync(
    join(folder, "package.json"),
    JSON.stringify({ name: "user", private: true, type: "module" }),
  );
  const installed = npm("install", `./${tarball}`, "--ignore-scripts", "--no-audit", "--no-fund", "--silent");
  if (installed.status !== 0) return t.skip("the npm registry can't be reached");
  const home = join(folder, "node_modules", "minorfault");
  for (const [subpath, target] of Object.entries(manifest.exports)) {
    if (typeof target === "string") continue;
    assert.ok(existsSync(join(home, target.types)), target.types);
    const program = `const m = await import("minorfault${subpath.slice(1)}"); console.log(Object.keys(m).length)`;
    const run = spawnSync(process.execPath, ["--input-type=module", "-e", program], {
      cwd: folder,
      encoding: "utf8",
    });
    assert.equal(run.status, 0, `${subpath}: ${run.stderr}`);
    assert.ok(Number(run.stdout) > 0, `${subpath} exports nothing`);
  }
  const help = spawnSync(join(folder, "node_modules", ".bin", "minorfault"), ["--help"], {
    encoding: "utf8",
  });
  assert.equal(help.status, 0, help.stderr);
  assert.match(help.stdout, /doctor/);
});
