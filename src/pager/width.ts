// How wide the window around a fault should be, from where the faults were. Pure but for what it remembers.
//
//   fault just behind the last run or before it, or a stride on:  twice as wide, up to the widest
//   fault anywhere else, after a run that went on:                as it is, for the next run is probably as long
//   fault anywhere else, again and again:                         half as wide, down to one page
//
// A window that is too wide costs copies that nobody reads, one that is too narrow costs a fault for each.

/** Faults that went nowhere before the window is narrowed: one of them may be a run that it was just wide enough for. */
const STRAYS_MAX = 2;

export class AdaptiveWidth {
  /** Pages, a power of two. */
  pages: number;
  readonly #pagesMax: number;
  readonly #pagesMin: number;
  #first = -1;
  #until = -1;
  #last = -1;
  #stride = 0;
  /** Whether the present run has gone on, and how many before it have not. */
  #goesOn = false;
  #strays = 0;

  constructor(pages: number, pagesMax: number, pagesMin: number = 1) {
    this.pages = pages;
    this.#pagesMax = Math.max(pages, pagesMax);
    this.#pagesMin = pagesMin;
  }

  /** A page has faulted, and [first, until) was installed for it. */
  served(page: number, first: number, until: number): void {
    const stride = page - this.#last;
    // A little behind it too: a guest that leaves pages out goes in order all the same.
    const reach = Math.max(1, this.pages >> 1);
    const isAbove = page >= this.#until && page < this.#until + reach;
    const isBelow = page < this.#first && page >= this.#first - reach;
    const isNext = isAbove || isBelow;
    // The third of three equal steps; a stride wider than the window gains nothing from a wider one.
    const isStride = stride === this.#stride && Math.abs(stride) < this.pages * 2;
    const isFirst = this.#last < 0;
    this.#stride = stride;
    this.#last = page;
    this.#first = first;
    this.#until = until;
    if (isFirst) return;
    if (isNext || isStride) {
      this.pages = Math.min(this.#pagesMax, this.pages * 2);
      this.#goesOn = true;
      return;
    }
    this.#strays = this.#goesOn ? 0 : this.#strays + 1;
    this.#goesOn = false;
    if (this.#strays < STRAYS_MAX) return;
    this.#strays = 0;
    this.pages = Math.max(this.#pagesMin, this.pages >> 1);
  }
}
