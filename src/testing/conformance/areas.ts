// The memory areas of a case. Each lies by itself, 64 MiB from the next, in a part of the address space where no
// system puts anything by its own choice:
//
//   0x10_0000_0000     + 64 MiB           + 128 MiB
//   ├─ a ──┤   gap     ├─ b ───────┤ gap  ├─ s ─┤
//
// so offsets in messages are unambiguous, huge pages are aligned, and no neighbour merges with another.

import { HUGE_PAGE_SIZE, MADV, MAP, PAGE_SIZE, PROT } from "../../abi/memory.ts";
import type { Actor } from "./actor.ts";
import { CaseProblem } from "./problem.ts";

export interface Area {
  readonly base: number;
  /** In pages of `pageBytes`. */
  readonly pages: number;
  readonly pageBytes: number;
  /** The object behind shared memory, where an alias can map it again. */
  readonly fd?: number;
}

const FIRST_BASE = 0x10_0000_0000;
const STRIDE = 0x400_0000;
/** Pages of the area `a` of a case that says nothing else. */
const DEFAULT_PAGES = 8;

export class AreaTable {
  readonly #actor: Actor;
  readonly #areas: Map<string, Area>;
  /** Anonymous helpers (read-only pages) have no name but lie in the same row. */
  #next: number;

  /** A forked child starts with its parent's areas: the memory is there. */
  constructor(actor: Actor, parent?: AreaTable) {
    this.#actor = actor;
    this.#areas = new Map(parent === undefined ? [] : parent.#areas);
    this.#next = parent === undefined ? 0 : parent.#next;
  }

  has(name: string): boolean {
    return this.#areas.has(name);
  }

  get(name: string): Area {
    const found = this.#areas.get(name);
    if (found !== undefined) return found;
    if (name === "a") return this.define("a", this.anonymous(DEFAULT_PAGES));
    if (name === "s") return this.define("s", sourcePages(this, DEFAULT_PAGES, undefined));
    throw new CaseProblem(`There is no area ${name}`);
  }

  pageBytes(name: string): number {
    return this.#areas.get(name)?.pageBytes ?? PAGE_SIZE;
  }

  define(name: string, area: Area): Area {
    if (this.#areas.has(name)) throw new CaseProblem(`Area ${name} has been set up or used before`);
    this.#areas.set(name, area);
    return area;
  }

  containing(address: number): Area | undefined {
    for (const area of this.#areas.values()) {
      if (address >= area.base && address < area.base + area.pages * area.pageBytes) return area;
    }
    return undefined;
  }

  get actor(): Actor {
    return this.#actor;
  }

  /** Address space for a new area; nothing is mapped there. */
  place(): number {
    const base = FIRST_BASE + this.#next * STRIDE;
    this.#next += 1;
    return base;
  }

  /** Private anonymous pages; at a given address if there is one. */
  anonymous(pages: number, protection: number = PROT.READ | PROT.WRITE, flags: number = MAP.PRIVATE): Area {
    const base = this.place();
    this.#actor.mapAnonymous(base, pages * PAGE_SIZE, protection, flags);
    return { base, pages, pageBytes: PAGE_SIZE };
  }

  /** Private 2 MiB pages of the pool. */
  huge(pages: number): Area {
    const base = this.place();
    const flags = MAP.PRIVATE | MAP.HUGETLB;
    this.#actor.mapAnonymous(base, pages * HUGE_PAGE_SIZE, PROT.READ | PROT.WRITE, flags);
    return { base, pages, pageBytes: HUGE_PAGE_SIZE };
  }

  /** Aligned anonymous memory for which the kernel may use transparent huge pages; counted in small ones. */
  transparentHuge(pages: number): Area {
    const area = this.anonymous(pages);
    this.#actor.must("madvise", area.base, pages * PAGE_SIZE, MADV.HUGEPAGE);
    return area;
  }

  /** A mapping of a file or a memory object. */
  mapped(options: MappedOptions): Area {
    const { pages, fd, protection, shared, at } = options;
    const base = at ?? this.place();
    const fixed = at === undefined ? MAP.FIXED_NOREPLACE : MAP.FIXED;
    const flags = (shared ? MAP.SHARED : MAP.PRIVATE) | fixed;
    this.#actor.must("mmap", base, pages * PAGE_SIZE, protection, flags, fd, 0);
    return { base, pages, pageBytes: PAGE_SIZE, fd };
  }
}

export interface MappedOptions {
  readonly pages: number;
  readonly fd: number;
  readonly protection: number;
  readonly shared: boolean;
  readonly at?: number | undefined;
}

/** Pages to copy from: page i is full of i + 1, or all of them of one byte. */
export function sourcePages(areas: AreaTable, pages: number, byte: number | undefined): Area {
  const area = areas.anonymous(pages);
  const values = Array.from({ length: pages }, (_, index) => byte ?? index + 1);
  areas.actor.fillPages(area.base, values);
  return area;
}
