// What the tests of QEMU need on this machine, and why they are skipped where it is not there. `npm test` installs it
// from Debian where it may.

import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { delimiter, join } from "node:path";
import { after } from "node:test";
import { type LinuxGuest, linuxGuest } from "../guest/linux-guest.ts";
import { QEMU } from "./machine.ts";

const HUGE_PAGES = "/proc/sys/vm/nr_hugepages";

/** Why nothing can be tested here; false: it can. */
export function skipUnlessQemu(): string | false {
  const isThere = (process.env.PATH ?? "").split(delimiter).some((folder) => existsSync(join(folder, QEMU)));
  if (!isThere) return `no ${QEMU} (Debian: qemu-system-x86)`;
  const guest = linuxGuest();
  return typeof guest === "string" ? guest : false;
}

export function theGuest(): LinuxGuest {
  const guest = linuxGuest();
  if (typeof guest === "string") throw new Error(guest);
  return guest;
}

/** A folder of this test file's own. Its path is short: those of sockets may be no longer than 107 bytes. */
export function ownFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), "mf-qemu-"));
  after(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

/** Makes room for so many huge pages while `run` takes place; false: the kernel does not give them. */
export async function withHugePages(count: number, run: () => Promise<void>): Promise<boolean> {
  const before = Number(readFileSync(HUGE_PAGES, "utf8"));
  try {
    writeFileSync(HUGE_PAGES, String(before + count));
    if (Number(readFileSync(HUGE_PAGES, "utf8")) < before + count) return false;
    await run();
    return true;
  } finally {
    writeFileSync(HUGE_PAGES, String(before));
  }
}
