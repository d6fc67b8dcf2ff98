// The Linux guest of the tests: Debian's kernel and busybox, made into something that QEMU starts directly.
// Made once a run and kept in the temporary folder: its name says from which files.

import { createHash } from "node:crypto";
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type ArchiveEntry, cpioArchive, MODE } from "./cpio-archive.ts";
import { INIT, MODULES } from "./init.ts";
import { uncompressedKernel } from "./linux-kernel.ts";
import { patternProgram } from "./pattern-program.ts";

const BUSYBOX = "/bin/busybox";
const KERNEL = /^vmlinuz-(.*-cloud-amd64)$/;

export interface LinuxGuest {
  readonly kernel: string;
  readonly initrd: string;
}

/** The guest's files, or why there are none here. */
export function linuxGuest(): LinuxGuest | string {
  const release = kernelRelease();
  if (release === undefined) return "no kernel of Debian's linux-image-cloud-amd64 in /boot";
  if (!existsSync(BUSYBOX)) return "no busybox (Debian: busybox-static)";
  const bzImage = `/boot/vmlinuz-${release}`;
  const inputs = [bzImage, BUSYBOX].map((path) => `${path} ${statSync(path).size} ${statSync(path).mtimeMs}`);
  const program = patternProgram();
  const key = createHash("sha256").update(inputs.join("\n")).update(INIT).update(program).digest("hex");
  const folder = join(tmpdir(), `minorfault-linux-guest-${key.slice(0, 16)}`);
  const guest = { kernel: join(folder, "kernel"), initrd: join(folder, "initrd") };
  mkdirSync(folder, { recursive: true });
  if (!existsSync(guest.initrd)) writeWhole(guest.initrd, cpioArchive(entriesOf(release, program)));
  if (!existsSync(guest.kernel)) {
    const compressed = readFileSync(bzImage);
    writeWhole(guest.kernel, uncompressedKernel(compressed) ?? compressed);
  }
  return guest;
}

function kernelRelease(): string | undefined {
  const names = existsSync("/boot") ? readdirSync("/boot") : [];
  const releases = names.flatMap((name) => KERNEL.exec(name)?.[1] ?? []);
  return releases.sort().at(-1);
}

function entriesOf(release: string, program: Uint8Array): ArchiveEntry[] {
  const modules = `/lib/modules/${release}/kernel`;
  return [
    ...["bin", "dev", "proc", "sys", "modules"].map((path) => ({ path, mode: MODE.FOLDER })),
    { path: "bin/busybox", mode: MODE.PROGRAM, bytes: readFileSync(BUSYBOX) },
    { path: "bin/sh", mode: MODE.PROGRAM, bytes: readFileSync(BUSYBOX) },
    { path: "init", mode: MODE.PROGRAM, bytes: Buffer.from(INIT) },
    { path: "pattern", mode: MODE.PROGRAM, bytes: program },
    ...MODULES.map((module) => ({
      path: `modules/${module.split("/").at(-1)}`,
      mode: MODE.FILE,
      bytes: readFileSync(join(modules, module)),
    })),
  ];
}

/** Several tests may make it at once: whoever is last replaces it by the same. */
function writeWhole(path: string, bytes: Uint8Array): void {
  const unfinished = `${path}.${process.pid}`;
  writeFileSync(unfinished, bytes);
  renameSync(unfinished, path);
}
