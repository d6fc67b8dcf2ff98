// Work that is done one piece after the other, however each of them ends.

export class Turns {
  #last: Promise<unknown> = Promise.resolve();

  /** Does it when all that was taken before has ended. */
  take<T>(work: () => Promise<T>): Promise<T> {
    const done = this.#last.then(work);
    this.#last = done.catch(() => undefined);
    return done;
  }

  /** Resolves when all that has been taken so far has ended. */
  async ended(): Promise<void> {
    await this.#last;
  }
}
