// The server's counters, in a file in memory that all its processes share: they outlive each of them, and to count costs
// one store.

import { ERRORS, type ErrorCode } from "../base/errors.ts";
import { local, type Memory, mapMemory, memfd } from "../linux/index.ts";
import type { EndReason, ServerCounters } from "./guests.ts";

const PLAIN = ["connections", "handOvers", "takeovers", "keepers"] as const;
const ENDS: readonly EndReason[] = ["exited", "installed", "dropped", "killed", "failed", "handed-on"];
const CODES = Object.keys(ERRORS) as readonly ErrorCode[];
const NAMES = [
  ...PLAIN,
  "since",
  ...ENDS.map((end) => `ended ${end}`),
  ...CODES.map((code) => `refused ${code}`),
];
const BYTES = 4096;

export type PlainCounter = (typeof PLAIN)[number];

export function makeTally(): number {
  const fd = memfd(local, "minorfault-counters", BYTES);
  const tally = new Tally(fd);
  tally.begin();
  tally.close();
  return fd;
}

export class Tally {
  readonly #memory: Memory;
  readonly #words: Float64Array;

  constructor(descriptor: number) {
    this.#memory = mapMemory(BYTES, { fd: descriptor });
    this.#words = new Float64Array(this.#memory.bytes.buffer, this.#memory.bytes.byteOffset, BYTES / 8);
  }

  /** Notes when the server began. */
  begin(): void {
    this.#words[NAMES.indexOf("since")] = Date.now();
  }

  /** Milliseconds since the epoch. */
  get since(): number {
    return this.#of("since");
  }

  count(name: PlainCounter): void {
    this.#add(name);
  }

  refuse(code: ErrorCode): void {
    this.#add(`refused ${code}`);
  }

  end(reason: EndReason): void {
    this.#add(`ended ${reason}`);
  }

  read(): ServerCounters {
    const [connections, handOvers, takeovers, keepers] = PLAIN.map((name) => this.#of(name));
    return {
      connections: connections!,
      handOvers: handOvers!,
      takeovers: takeovers!,
      keepers: keepers!,
      refused: this.#some("refused ", CODES),
      ended: this.#some("ended ", ENDS),
    };
  }

  close(): void {
    this.#memory.close();
  }

  #some(prefix: string, names: readonly string[]): Record<string, number> {
    const counted = names.map((name) => [name, this.#of(prefix + name)] as const);
    return Object.fromEntries(counted.filter(([, count]) => count > 0));
  }

  #of(name: string): number {
    return this.#words[NAMES.indexOf(name)]!;
  }

  #add(name: string): void {
    this.#words[NAMES.indexOf(name)]! += 1;
  }
}
