// One of the two systems while it runs a program: its processes, what their threads are doing, what came out.
//
// Everything that is said of it is put so that it is the same text on both systems if they behave the same: places
// instead of addresses, the order of birth instead of process and thread ids, handles instead of descriptors.

import { errnoName } from "../../src/abi/errno.ts";
import { MADV, MAP, O, PAGE_SIZE, PROT } from "../../src/abi/memory.ts";
import type { Operation, Process, System, Thread } from "../../src/abi/system.ts";
import { assert } from "../../src/base/errors.ts";
import {
  AREAS,
  ARENA,
  ARENA_PAGES,
  type Area,
  HUGE_AREA,
  isOfObject,
  mapFlags,
  OBJECT_PAGES,
  placeName,
  SEALED,
} from "./arena.ts";
import type { Program } from "./steps.ts";

/** A userfaultfd as a process knows it. */
export interface Handle {
  readonly fd: number;
  /** The context behind it; duplicates and inherited descriptors share it. Numbered by birth. */
  readonly context: number;
}

/** What one thread has begun and not ended. */
export interface Pending {
  readonly thread: number;
  readonly family: "access" | "space" | "fill" | "read" | "fork";
  /** The area that an access is in, or that a COPY takes its bytes from. */
  readonly place?: number;
  /** It changes what it touches. */
  readonly writes?: boolean;
  /** It is an instruction of the thread, not a call. */
  readonly byItself?: boolean;
  /** It may go on to touch pages, and to wait for them. */
  readonly bringsPages?: boolean;
  /** The process whose memory a call reaches into. */
  readonly remote?: number;
  /** The context that a read waits at. */
  readonly context?: number;
  /** How many messages it takes at most. */
  readonly messagesMax?: number;
  /** The text of what came out; called once, when the operation has ended. */
  readonly finish: (value: number) => string;
}

export const THREADS = 4;
/** Scratch of a thread: its struct, then room for messages or regions. */
const THREAD_SCRATCH = 0x2000;
export const PATHS = 0x100;

export class Actor {
  readonly index: number;
  readonly process: Process;
  readonly threads: Thread[] = [];
  readonly pending = new Map<number, Pending>();
  readonly handles: Handle[] = [];
  readonly files: {
    readonly object: number;
    readonly zero: number;
    readonly pagemap: number;
    readonly letter: number;
    /** One a thread: a write that waits for its page holds its file. */
    readonly sinks: readonly number[];
  };
  alive = true;

  constructor(index: number, process: Process, inherited?: Actor, handles?: readonly Handle[]) {
    this.index = index;
    this.process = process;
    for (let each = 0; each < THREADS; each++) this.threads.push(process.spawnThread());
    // What the parent opened since the fork began is not inherited, hence the list of that moment.
    this.handles.push(...(handles ?? []));
    this.files = {
      object: inherited?.files.object ?? this.memfd("object"),
      zero: inherited?.files.zero ?? this.open("/dev/zero"),
      pagemap: this.open("/proc/self/pagemap"),
      letter: this.memfd("letter"),
      sinks: this.threads.map(() => this.memfd("sink")),
    };
  }

  /** Where a thread's arguments are: in its process, and in our view of it. */
  scratch(thread: number): { readonly address: number; readonly at: number } {
    const at = THREAD_SCRATCH * (1 + thread);
    return { address: this.process.scratch.address + at, at };
  }

  get view(): DataView {
    return this.process.scratch.view;
  }

  open(path: string): number {
    this.process.scratch.bytes.set(new TextEncoder().encode(`${path}\0`), PATHS);
    return this.must("openat", -100, this.process.scratch.address + PATHS, O.RDONLY, 0);
  }

  memfd(name: string): number {
    this.process.scratch.bytes.set(new TextEncoder().encode(`${name}\0`), PATHS);
    return this.must("memfd_create", this.process.scratch.address + PATHS, 0);
  }

  must(name: Parameters<Process["call"]>[0], ...args: number[]): number {
    const result = this.process.call(name, ...args);
    assert(result >= 0, `${name}(${args.join(", ")}) answered ${errnoName(result)}`);
    return result;
  }

  /** Puts bytes of the scratch into memory that can only be read; answers their address there. */
  seal(at: number, byteLength: number): number {
    const { process, files } = this;
    this.must("pwrite64", files.letter, process.scratch.address + at, byteLength, 0);
    this.must("mprotect", SEALED, PAGE_SIZE, PROT.READ | PROT.WRITE);
    this.must("pread64", files.letter, SEALED, byteLength, 0);
    this.must("mprotect", SEALED, PAGE_SIZE, PROT.READ);
    return SEALED;
  }

  /** Index of an idle thread, the wished one if possible. */
  idle(wish: number): number | undefined {
    for (let step = 0; step < THREADS; step++) {
      const index = (wish + step) % THREADS;
      if (!this.pending.has(index)) return index;
    }
    return undefined;
  }
}

interface Birth {
  readonly parent: Actor;
  readonly thread: Thread;
  readonly child: () => Process | undefined;
  readonly handles: readonly Handle[];
}

/** The text of a result: an errno's name, or a number. */
export function resultText(value: number): string {
  return value < 0 ? errnoName(value) : String(value);
}

export class Host {
  readonly system: System;
  readonly actors: Actor[] = [];
  #births: Birth[] = [];
  #contexts = 0;
  /** What has come out since it was last asked. */
  #said: string[] = [];

  constructor(system: System, { huge, restart }: Pick<Program, "huge" | "restart">) {
    this.system = system;
    const root = new Actor(0, system.spawnProcess());
    root.process.catchUserSignal({ restart });
    this.actors.push(root);
    root.must("ftruncate", root.files.object, OBJECT_PAGES * PAGE_SIZE);
    root.must("mmap", SEALED, PAGE_SIZE, PROT.READ, MAP.PRIVATE | MAP.ANONYMOUS | MAP.FIXED, -1, 0);
    for (const area of AREAS) {
      if (area.index === HUGE_AREA && !huge) continue;
      const fd = isOfObject(area) ? root.files.object : -1;
      const flags = mapFlags(area) | MAP.FIXED_NOREPLACE;
      root.must("mmap", area.start, area.mapped * area.pageBytes, PROT.READ | PROT.WRITE, flags, fd, 0);
      if (area.kind === "source") this.#fill(root, area);
      // Whether tables of pages exist shows in scans: the huge ones exist from the beginning.
      if (area.kind === "huge") root.must("madvise", area.start, area.pageBytes, MADV.POPULATE_WRITE);
      if (area.kind === "huge") root.must("madvise", area.start, area.pageBytes, MADV.DONTNEED);
    }
  }

  /** Every byte of the sources is different from its neighbours, and none is zero. */
  #fill(root: Actor, { start, mapped }: Area): void {
    const length = mapped * PAGE_SIZE;
    const { address, bytes } = root.process.scratch;
    const pattern = root.memfd("pattern");
    for (let at = 0; at < length; at++) bytes[at] = 1 + ((at * 7 + Math.floor(at / PAGE_SIZE) * 31) % 255);
    root.must("write", pattern, address, length);
    root.must("pread64", pattern, start, length, 0);
    root.must("close", pattern);
  }

  /** How many contexts were ever made. */
  get contexts(): number {
    return this.#contexts;
  }

  newContext(): number {
    return this.#contexts++;
  }

  /** Every process that lives, with its index. */
  get living(): Actor[] {
    return this.actors.filter((actor) => actor.alive);
  }

  get births(): number {
    return this.#births.length;
  }

  say(text: string): void {
    this.#said.push(text);
  }

  /** Begins an operation of a thread. */
  begin(actor: Actor, operation: Operation, pending: Pending): void {
    actor.pending.set(pending.thread, pending);
    actor.threads[pending.thread]?.start(operation);
  }

  fork(parent: Actor): void {
    const { thread, child } = parent.process.fork();
    this.#births.push({ parent, thread, child, handles: [...parent.handles] });
  }

  kill(actor: Actor): void {
    actor.process.kill();
    actor.alive = false;
    actor.pending.clear();
    this.#births = this.#births.filter((birth) => birth.parent !== actor);
  }

  /** Lets everything that can happen happen, and collects what came out. */
  settle(): void {
    for (const actor of this.living) actor.process.settle();
    if (this.living.length > 1) for (const actor of this.living) actor.process.settle();
    for (const actor of this.living) this.#collect(actor);
    this.#receive();
  }

  #collect(actor: Actor): void {
    for (const [index, pending] of [...actor.pending].sort(([a], [b]) => a - b)) {
      const ending = actor.threads[index]?.ending;
      if (ending === undefined) continue;
      actor.pending.delete(index);
      const who = `${actor.index}.${index}`;
      if (ending.kind === "value") this.say(`${who} ${pending.finish(ending.value)}`);
      else if (ending.kind === "gone") this.say(`${who} gone`);
      else this.say(`${who} signal ${ending.signal}(${ending.code}) at ${placeName(ending.address)}`);
    }
  }

  #receive(): void {
    this.#births = this.#births.filter((birth) => {
      const process = birth.child();
      if (process !== undefined) {
        this.say(`${birth.parent.index} forked ${this.actors.length}`);
        this.actors.push(new Actor(this.actors.length, process, birth.parent, birth.handles));
        return false;
      }
      if (birth.thread.ending === undefined) return true;
      const { ending } = birth.thread;
      this.say(
        `${birth.parent.index} fork failed ${ending.kind === "value" ? resultText(ending.value) : ending.kind}`,
      );
      return false;
    });
  }

  /** Everything that can be seen from outside, as text; what came out first. */
  observe(): string[] {
    const lines = this.#said;
    this.#said = [];
    for (const actor of this.living) {
      const states = actor.threads.map((thread) => thread.state[0]).join("");
      const signals = actor.threads.map((thread) => thread.signalsHandled || "").join("");
      lines.push(
        `${actor.index} threads ${states}${signals === "" ? "" : ` signals ${signals}`} pages ${this.#pages(actor)}`,
      );
    }
    if (this.#births.length > 0) lines.push(`${this.#births.length} forks wait`);
    return lines;
  }

  /** One letter a page: present, protected (W), both, neither. */
  #pages(actor: Actor): string {
    const { at, address } = actor.scratch(THREADS);
    const length = ARENA_PAGES * 8;
    const read = actor.process.call("pread64", actor.files.pagemap, address, length, (ARENA / PAGE_SIZE) * 8);
    assert(read === length, `The page map answered ${read}`);
    let text = "";
    for (let index = 0; index < ARENA_PAGES; index++) {
      if (index % 16 === 0) text += "|";
      if (index % 16 < 12) text += pageLetter(actor.view.getUint32(at + index * 8 + 4, true));
    }
    const huge = AREAS[HUGE_AREA];
    if (huge === undefined) return text;
    text += "|";
    for (let page = 0; page < huge.pages; page++) {
      const offset = ((huge.start + page * huge.pageBytes) / PAGE_SIZE) * 8;
      actor.process.call("pread64", actor.files.pagemap, address, 8, offset);
      text += pageLetter(actor.view.getUint32(at + 4, true));
    }
    return text;
  }

  close(): void {
    for (const actor of [...this.living].reverse()) actor.process.kill();
  }
}

/** From the upper half of a page map's entry: bit 63 present, bit 57 write-protected. */
function pageLetter(high: number): string {
  const present = high >>> 31 === 1;
  const protectedByUffd = (high & (1 << 25)) !== 0;
  return present ? (protectedByUffd ? "W" : "P") : protectedByUffd ? "w" : ".";
}
