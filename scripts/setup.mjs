// Brings a checkout to the state in which `npm start` and `npm test` can run: dependencies as the lock file
// names them, and a build of the present sources. Plain JavaScript because nothing is built yet when it runs.
// Does nothing that is already done, so a second run costs the time of an incremental build.
import { spawnSync } from "node:child_process";
import { existsSync, statSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const root = join(dirname(fileURLToPath(import.meta.url)), "..");
const quiet = process.argv.includes("--quiet");

function run(command, args) {
  const result = spawnSync(command, args, {
    cwd: root,
    // Results go to stdout; set-up is not a result.
    stdio: ["ignore", 2, 2],
    shell: process.platform === "win32",
  });
  if (result.status !== 0) {
    console.error(`setup: ${command} ${args.join(" ")} failed with ${result.status ?? result.signal}`);
    process.exit(3);
  }
}

const [major, minor] = process.versions.node.split(".").map(Number);
if (major < 20 || (major === 20 && minor < 19)) {
  console.error(`setup: minorfault needs Node 20.19 or newer, this is ${process.versions.node}`);
  process.exit(3);
}
const installed = join(root, "node_modules", ".package-lock.json");
const lock = join(root, "package-lock.json");
if (!existsSync(installed) || statSync(installed).mtimeMs < statSync(lock).mtimeMs) {
  if (!quiet) console.error("setup: installing dependencies (npm ci)");
  run("npm", ["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]);
}
// What runs in a browser is a program of its own: it knows a document, and nothing of Node.
for (const project of [".", "src/daemon/page/browser"]) {
  run(process.execPath, [join(root, "node_modules", "typescript", "bin", "tsc"), "-p", join(root, project)]);
}
