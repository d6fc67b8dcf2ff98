// The names that a case has introduced so far, known while it is parsed, and what it needs of the host.

/** What a case can't do without, and what a host may not have. */
export type Need = "hugetlb" | "restricted" | "device";

export class Scope {
  /** Area `a` (8 pages) and the source `s` (8 pages, page i filled with i+1) need no declaration. */
  readonly areas = new Set<string>(["a", "s"]);
  readonly descriptors = new Set<string>(["u"]);
  readonly processes = new Set<string>();
  /** "t1" of the main process, "c.t1" of a child. */
  readonly threads = new Set<string>();
  readonly needs = new Set<Need>();
}
