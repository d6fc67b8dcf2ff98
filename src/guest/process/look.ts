// Whether a thread of another process is running or waiting, exactly.
//
// /proc/PID/task/TID/syscall is the kernel's own answer: it says "running" unless the thread has been switched out in
// a sleep, and for that it compares the count of context switches before and after it looks. A state letter would
// not do: a thread on its way to sleep shows "S" while it still runs and may yet turn round. Where the file cannot be
// read (other privileges), the letter together with an unchanged count of time slices has to serve.
//
//   running
//   -1 0x7ffc... 0x5000...            waiting outside of a system call: in a page fault
//   0 0x3 0x5100... 0x20 ... sp pc    waiting in system call 0

import { ERRNO } from "../../abi/errno.ts";
import { O } from "../../abi/memory.ts";
import { putString } from "../../linux/arguments.ts";
import { local } from "../../linux/index.ts";

export type Look =
  | { readonly kind: "running" }
  /** `slices` changes whenever it has run in between; `where` is the kernel function it waits in, if that is told. */
  | { readonly kind: "waiting"; readonly slices: string; readonly where: string }
  | { readonly kind: "gone" };

const RUNNING: Look = { kind: "running" };
const GONE: Look = { kind: "gone" };

const AT_FDCWD = -100;
const PATH = 0;
const TEXT = 1024;
const TEXT_BYTES = 512;

export class Looker {
  readonly #folder: string;
  /** Open files of the thread, by name; -errno where it could not be opened. */
  readonly #files = new Map<string, number>();

  constructor(pid: number, tid: number) {
    this.#folder = `/proc/${pid}/task/${tid}`;
  }

  look(): Look {
    const syscall = this.#read("syscall");
    if (syscall === undefined) return GONE;
    const inside = syscall !== "" ? !syscall.startsWith("running") : this.#sleeps();
    if (!inside) return RUNNING;
    const slices = this.#read("schedstat");
    if (slices === undefined) return GONE;
    return { kind: "waiting", slices, where: this.#read("wchan") ?? "" };
  }

  /** The state letter, for where the better answer is denied. */
  #sleeps(): boolean {
    const stat = this.#read("stat") ?? "";
    return /^[SD]/.test(stat.slice(stat.lastIndexOf(")") + 2));
  }

  /** A file of the thread: "" if it may not be read, undefined if the thread is gone. */
  #read(name: string): string | undefined {
    const fd = this.#files.get(name) ?? this.#open(name);
    if (fd === -ERRNO.ENOENT || fd === -ERRNO.ESRCH) return undefined;
    if (fd < 0) return "";
    const { address, bytes } = local.scratch;
    const count = local.call("pread64", fd, address + TEXT, TEXT_BYTES, 0);
    if (count === -ERRNO.ESRCH) return undefined;
    if (count < 0) return "";
    let text = "";
    for (let at = TEXT; at < TEXT + count; at++) text += String.fromCharCode(bytes[at] ?? 0);
    return text;
  }

  #open(name: string): number {
    const path = putString(local, PATH, `${this.#folder}/${name}`);
    const fd = local.call("openat", AT_FDCWD, path, O.RDONLY | O.CLOEXEC, 0);
    this.#files.set(name, fd);
    return fd;
  }

  close(): void {
    for (const fd of this.#files.values()) {
      if (fd >= 0) local.call("close", fd);
    }
    this.#files.clear();
  }
}
