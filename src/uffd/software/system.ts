// The software system: processes over one pool of physical memory, one scheduler, and the kernel that they believe in.

import { PAGE_SIZE } from "../../abi/memory.ts";
import type { System } from "../../abi/system.ts";
import { MinorfaultError } from "../../base/errors.ts";
import { ARENA_MAX } from "./arena.ts";
import { FramePool } from "./frame-pool.ts";
import { SoftwareProcess } from "./process.ts";
import { PROFILES, type Profile, type ProfileName } from "./profile.ts";
import { Scheduler } from "./scheduler.ts";
import { SharedObject } from "./shared-object.ts";

export interface SystemOptions {
  /** The kernel to answer like. Default "linux-6.18". */
  readonly profile?: ProfileName;
  /** Processes start with all capabilities, as root's do. Default true. */
  readonly privileged?: boolean;
  /** vm.unprivileged_userfaultfd. Default false. */
  readonly unprivilegedUserfaultfd?: boolean;
  /** Bytes of physical memory; more is ENOMEM. Default and most: almost 4 GiB. */
  readonly memoryBytes?: number;
  /** vm.nr_hugepages: huge pages of 2 MiB for hugetlb memory. Default 256. */
  readonly hugePages?: number;
  /** Takes address space for all of `memoryBytes` at once: faster accesses, since the memory never moves. */
  readonly reserve?: boolean;
}

/** The first process id; ids count up from it. */
const FIRST_ID = 1000;
const HUGE_PAGES = 256;

export class SoftwareSystem implements System {
  readonly name = "software";
  readonly profile: Profile;
  readonly privileged: boolean;
  readonly unprivilegedUserfaultfd: boolean;
  readonly pool: FramePool;
  readonly scheduler = new Scheduler();
  readonly #processes = new Map<number, SoftwareProcess>();
  #hostname: SharedObject | undefined;
  #lastId = FIRST_ID - 1;
  #closed = false;

  constructor(options: SystemOptions = {}) {
    checkOptions(options);
    this.profile = PROFILES[options.profile ?? "linux-6.18"];
    this.privileged = options.privileged ?? true;
    this.unprivilegedUserfaultfd = options.unprivilegedUserfaultfd ?? false;
    const { memoryBytes = ARENA_MAX, hugePages = HUGE_PAGES, reserve = false } = options;
    this.pool = new FramePool(memoryBytes, hugePages, reserve);
  }

  spawnProcess(): SoftwareProcess {
    if (this.#closed) throw new MinorfaultError("ERR_CLOSED", "The system has been closed");
    return this.adopt(new SoftwareProcess(this));
  }

  /** A process that exists from now on. */
  adopt(process: SoftwareProcess): SoftwareProcess {
    this.#processes.set(process.pid, process);
    return process;
  }

  process(pid: number): SoftwareProcess | undefined {
    return this.#processes.get(pid);
  }

  /** The one ordinary file: /etc/hostname. With a reference for whoever opens it. */
  hostname(): SharedObject {
    if (this.#hostname === undefined) {
      const bytes = new TextEncoder().encode("minorfault\n");
      this.#hostname = new SharedObject(this.pool, "file", "etc/hostname", bytes.length);
      const frame = this.#hostname.frameFor(0);
      this.pool.bytes.set(bytes, frame * PAGE_SIZE);
    }
    this.#hostname.retain();
    return this.#hostname;
  }

  /** A process has ended. */
  buried(process: SoftwareProcess): void {
    this.#processes.delete(process.pid);
  }

  /** A number for a process or a thread. */
  nextId(): number {
    return ++this.#lastId;
  }

  close(): void {
    this.#closed = true;
    for (const process of this.#processes.values()) process.terminate(9);
    this.scheduler.drain();
  }

  [Symbol.dispose](): void {
    this.close();
  }
}

function checkOptions(options: SystemOptions): void {
  if (typeof options !== "object" || options === null) {
    throw new MinorfaultError("ERR_BAD_ARGUMENT", "The options of a system are an object");
  }
  const { profile, memoryBytes, hugePages } = options;
  if (profile !== undefined && !Object.hasOwn(PROFILES, profile)) {
    const known = Object.keys(PROFILES).join(", ");
    throw new MinorfaultError("ERR_BAD_ARGUMENT", `profile must be one of ${known}, not ${String(profile)}`);
  }
  for (const [name, value] of Object.entries({ memoryBytes, hugePages })) {
    if (value === undefined || (Number.isSafeInteger(value) && value >= 0)) continue;
    throw new MinorfaultError("ERR_BAD_ARGUMENT", `${name} must be a whole number, not ${String(value)}`);
  }
}

/** A system of its own, with nothing running in it. */
export function createSystem(options: SystemOptions = {}): SoftwareSystem {
  return new SoftwareSystem(options);
}
