// Everything that must outlive the process that knows it: the server's sockets, its configuration, connections that have
// not been understood yet, and guests. Each process of the server has a copy, with descriptors of its own.

import { local } from "../linux/index.ts";
import { type Arrived, type Entry, type EntryType, tell, tellEntry } from "./link.ts";

export class Ledger {
  readonly #entries = new Map<string, Entry>();

  /** What it knows, in short: whoever has the same marks has the same connections and guests. */
  get marks(): readonly string[] {
    return [...this.#entries.values()].map(mark);
  }

  get(id: string): Entry | undefined {
    return this.#entries.get(id);
  }

  of(type: EntryType): readonly Entry[] {
    return [...this.#entries.values()].filter((entry) => entry.type === type);
  }

  /** Takes the entry with its descriptors; one of the same id goes, and so do its descriptors. */
  put(entry: Entry): void {
    const before = this.#entries.get(entry.id);
    this.#entries.set(entry.id, entry);
    if (before !== undefined) closeAll(before.descriptors.filter((fd) => !entry.descriptors.includes(fd)));
  }

  drop(id: string): void {
    closeAll(this.release(id));
  }

  /** Drops the entry and leaves its descriptors open: they are the caller's. */
  release(id: string): readonly number[] {
    const { descriptors = [] } = this.#entries.get(id) ?? {};
    this.#entries.delete(id);
    return descriptors;
  }

  /** What the message does to a ledger; false when it is about something else. Nothing makes a guest a connection again. */
  apply({ message, descriptors }: Arrived): boolean {
    if (message.kind === "put") {
      const { id, type, text } = message;
      if (type === "connection" && this.#entries.get(id)?.type === "guest") closeAll(descriptors);
      else this.put({ id, type, text, descriptors });
    } else if (message.kind === "drop") {
      this.drop(message.id);
    } else {
      return false;
    }
    return true;
  }

  /** Tells all that is in it, besides what the other side has. `generation`: see baton.ts. */
  sync(link: number, generation: number, marks: readonly string[] = []): void {
    const known = new Set(marks);
    for (const entry of this.#entries.values()) if (!known.has(mark(entry))) tellEntry(link, entry);
    tell(link, { kind: "synced", generation });
  }
}

/** A connection becomes a guest under the same id. */
function mark({ id, type }: Entry): string {
  return `${id}/${type}`;
}

export function closeAll(descriptors: readonly number[]): void {
  for (const fd of descriptors) local.call("close", fd);
}
