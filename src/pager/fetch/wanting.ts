// Who would like units, but does not wait for them: they get what they miss of them when it has come.

/** Units from `first` up to, not including, `until`, for one of those who would like them. */
export interface WantedRun<Client> {
  readonly client: Client;
  readonly first: number;
  readonly until: number;
}

export class Wanting<Client> {
  readonly #clients = new Map<number, Set<Client>>();

  add(unit: number, client: Client): void {
    const clients = this.#clients.get(unit);
    if (clients === undefined) this.#clients.set(unit, new Set([client]));
    else clients.add(client);
  }

  has(unit: number, client: Client): boolean {
    return this.#clients.get(unit)?.has(client) ?? false;
  }

  /** Whose the unit was; it is nobody's from now on. */
  take(unit: number): Set<Client> {
    const clients = this.#clients.get(unit) ?? new Set();
    this.#clients.delete(unit);
    return clients;
  }

  /** The same of `count` units, what one client would like of them side by side as one. */
  takeRuns(unit: number, count: number): readonly WantedRun<Client>[] {
    const open = new Map<Client, WantedRun<Client>>();
    const runs: WantedRun<Client>[] = [];
    for (let each = unit; each < unit + count; each++) {
      for (const client of this.take(each)) {
        const run = open.get(client);
        const goesOn = run?.until === each;
        if (run !== undefined && !goesOn) runs.push(run);
        open.set(client, { client, first: goesOn ? run.first : each, until: each + 1 });
      }
    }
    return [...runs, ...open.values()];
  }

  forget(unit: number): void {
    this.#clients.delete(unit);
  }

  /** It would like nothing any more. */
  remove(client: Client): void {
    for (const [unit, clients] of this.#clients) {
      if (clients.delete(client) && clients.size === 0) this.#clients.delete(unit);
    }
  }
}
