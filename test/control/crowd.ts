// A hundred guests that restore from images, each in its own way: for the page, `top` and the report to draw.

import { FakeGuest, type FakeTable } from "./fake-table.ts";

/** Numbers that look random and are always the same. */
function* numbers(seed: number): Generator<number, never> {
  let state = seed;
  for (;;) {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    yield state / 2 ** 32;
  }
}

export class Crowd {
  readonly guests: readonly FakeGuest[];
  readonly #random = numbers(7);

  constructor(table: FakeTable, count: number, { since = Date.now() } = {}) {
    this.guests = Array.from({ length: count }, (_, index) => {
      const image = ["web", "database", "worker"][index % 3]!;
      const guest = new FakeGuest(`g${index + 1}`, image, { pages: 16_384, name: `vm-${index + 1}`, since });
      return table.arrive(guest);
    });
  }

  /** Each guest goes on: it runs through some memory, jumps about in some, and now and then waits. */
  step(round: number): void {
    for (const [index, guest] of this.guests.entries()) {
      const next = () => this.#random.next().value;
      const faults = Math.max(0, Math.round((24 - index / 8) * next() * Math.exp(-round / 30)));
      for (let fault = 0; fault < faults; fault++) {
        const isRun = next() < 0.6;
        const page = isRun
          ? (round * 140 + fault * 16 + index * 811) % guest.pages
          : Math.floor(next() * guest.pages);
        guest.fault(page & ~15, {
          us: 4 * Math.exp(next() * (isRun ? 1.5 : 4)) + (next() < 0.02 ? 3000 * next() : 0),
        });
      }
      guest.waiting = next() < 0.12 ? Math.floor(next() * 6) : 0;
    }
  }
}
