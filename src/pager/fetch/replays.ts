// The replays of a source's working sets: which is under way, who gets it, and what is kept of it for the next guest.
//
//   guests of one set      ──▶ one replay: read, verified, and installed for everybody who has asked by the time it begins
//   one that comes later   ──▶ from what was kept, where that was asked for: verified already, so only copies are left of it
//
// What is kept lies where it was verified, in slots that nobody else writes to. A set is kept whole or not at all: the one who
// fetches says how many slots it takes, and where there is no room it goes by as if nothing were ever kept.

import type { MinorfaultError } from "../../base/errors.ts";
import type { FetchClient } from "./client.ts";
import type { FetchLink, ReplayBegin, ReplayEnd, ReplayPiece } from "./link.ts";
import { Prover } from "./proving.ts";
import { ReplayInstaller } from "./replay.ts";

interface Replay {
  readonly workingSet: string;
  readonly clients: Set<FetchClient>;
}

/** What one client gets from what is kept. */
interface Repeat extends Replay {
  /** What it is told when all of that is installed; undefined while more is being fetched. */
  end: ReplayEnd | undefined;
}

/** A set that is kept, or is about to be. */
interface Kept {
  readonly slots: number;
  readonly pieces: ReplayPiece[];
  isWhole: boolean;
}

/** LIMIT: bytes of working sets that are kept for all sources of a host. */
export const KEPT_BYTES_MAX: number = 256 * 1024 * 1024;

/** Slots in which something may still be kept. */
export interface KeptRoom {
  slots: number;
}

export interface ReplaysOptions {
  /** Where slot 0 of the replay is. */
  readonly staging: number;
  /** LIMIT: slots of what is kept of this source. */
  readonly keptSlots: number;
  /** What is left for all sources of this thread. */
  readonly room: KeptRoom;
  readonly link: FetchLink;
  /** Words that the thread which fetches sees. */
  readonly words: Int32Array;
  /** Whether this thread has no more than one guest. */
  readonly isAlone: () => boolean;
}

export class Replays {
  readonly #options: ReplaysOptions;
  readonly #installer: ReplayInstaller;
  /** From the one who fetches; the first one is under way. */
  readonly #fetched: Replay[] = [];
  /** From what is kept. */
  readonly #repeated = new Set<Repeat>();
  readonly #wanted = new Set<string>();
  readonly #kept = new Map<string, Kept>();
  /** Pieces of the one that is under way which are not installed yet. */
  #pending = 0;
  #end: ReplayEnd | undefined;
  /** What this thread has found wrong with it, and who is to hear of that: of the rest they get nothing. */
  #wrong: { readonly error: MinorfaultError; readonly clients: Set<FetchClient> } | undefined;
  readonly #prover: Prover;

  constructor(options: ReplaysOptions) {
    this.#options = options;
    const { words, staging } = options;
    this.#prover = new Prover(words, staging);
    this.#installer = new ReplayInstaller(staging, this.#prover);
  }

  /** Replays a working set into a client's memory; with `isRunning` its first piece is on its way already. */
  add(client: FetchClient, workingSet: string, isRunning = false): void {
    client.bytesReplayed = 0;
    const kept = this.#kept.get(workingSet);
    if (kept === undefined) this.#fetch(workingSet, isRunning).clients.add(client);
    else this.#repeat(client, workingSet, kept);
  }

  /** Reads a working set for guests that are yet to come, if there is room for it. */
  keep(workingSet: string): void {
    this.#wanted.add(workingSet);
    if (!this.#kept.has(workingSet)) this.#fetch(workingSet, false);
  }

  /** A client whose guest has ended. */
  remove(client: FetchClient): void {
    for (const replay of this.#fetched) replay.clients.delete(client);
    for (const replay of this.#repeated) replay.clients.delete(client);
    this.#wrong?.clients.delete(client);
  }

  /** Whether a client's memory is being filled. */
  includes(client: FetchClient): boolean {
    if (this.#fetched[0]?.clients.has(client)) return true;
    for (const replay of this.#repeated) if (replay.clients.has(client)) return true;
    return false;
  }

  /** Those whose memory is being filled. */
  *clients(): Generator<FetchClient> {
    yield* this.#fetched[0]?.clients ?? [];
    for (const replay of this.#repeated) yield* replay.clients;
  }

  get isUnderWay(): boolean {
    return this.#fetched.length > 0 || this.#repeated.size > 0;
  }

  /** Of those whose memory is being filled from what is kept, which is nothing but copies, the first one. */
  get repeatedTo(): FetchClient | undefined {
    for (const { clients } of this.#repeated) for (const client of clients) return client;
    return undefined;
  }

  /** There is something to install that is there. */
  get isBusy(): boolean {
    return this.#installer.isBusy;
  }

  get isPutOff(): boolean {
    return this.#installer.isPutOff;
  }

  /** The source is closed: what was kept of it is gone with it. */
  close(): void {
    for (const { slots } of this.#kept.values()) this.#options.room.slots += slots;
    this.#kept.clear();
  }

  hear(news: ReplayBegin | ReplayPiece | ReplayEnd): void {
    if (news.kind === "replaying") this.#begin(news);
    else if (news.kind === "piece") this.#take(news);
    else this.#end = news;
  }

  /** Goes on for about so many bytes, or until the system puts it off; answers how many. */
  install(bytesMax: number): number {
    this.#help();
    return this.#installer.install(bytesMax);
  }

  /** Takes a part in the verifying where nobody but the guest of the replay would wait for that. */
  #help(): void {
    const [client, other] = this.#fetched[0]?.clients ?? [];
    const isOnly = client !== undefined && other === undefined && this.#options.isAlone();
    this.#prover.helps = isOnly;
  }

  /** Tells of the one that has ended, and begins the next one. */
  settle(): void {
    const end = this.#end;
    if (end === undefined || this.#pending > 0) return;
    this.#end = undefined;
    const wrong = this.#wrong;
    const error = end.error ?? wrong?.error;
    this.#wrong = undefined;
    const ended = this.#fetched.shift();
    const kept = this.#kept.get(end.workingSet);
    if (kept !== undefined && error === undefined) kept.isWhole = true;
    else this.#discard(end.workingSet);
    const told = error === undefined ? end : { ...end, error };
    for (const client of [...(wrong?.clients ?? []), ...(ended?.clients ?? [])]) this.#tell(client, told);
    this.#help();
    this.#fetchNext();
  }

  /** Tells a client of the end: later, if something that was kept before it came is still to be installed. */
  #tell(client: FetchClient, end: ReplayEnd): void {
    for (const repeat of this.#repeated) {
      if (!repeat.clients.has(client)) continue;
      repeat.end = end;
      return;
    }
    client.options.onReplayed?.(end, client.bytesReplayed);
  }

  #fetchNext(): void {
    for (let next = this.#fetched[0]; next !== undefined; next = this.#fetched[0]) {
      const { workingSet, clients } = next;
      const kept = this.#kept.get(workingSet);
      if (kept === undefined) {
        this.#options.link.send({ kind: "replay", workingSet });
        return;
      }
      this.#fetched.shift();
      for (const client of clients) this.#repeat(client, workingSet, kept);
    }
  }

  /** The replay of a set that nobody has begun yet. */
  #fetch(workingSet: string, isRunning: boolean): Replay {
    const planned = this.#fetched.slice(1).find((replay) => replay.workingSet === workingSet);
    if (planned !== undefined) return planned;
    const replay = { workingSet, clients: new Set<FetchClient>() };
    this.#fetched.push(replay);
    if (this.#fetched.length === 1 && !isRunning) this.#options.link.send({ kind: "replay", workingSet });
    return replay;
  }

  #begin({ workingSet, slots }: ReplayBegin): void {
    const { keptSlots, room } = this.#options;
    this.#help();
    let used = 0;
    for (const kept of this.#kept.values()) used += kept.slots;
    if (!this.#wanted.has(workingSet) || this.#kept.has(workingSet)) return;
    if (used + slots > keptSlots || slots > room.slots) return;
    room.slots -= slots;
    this.#kept.set(workingSet, { slots, pieces: [], isWhole: false });
  }

  #take(piece: ReplayPiece): void {
    const [replay] = this.#fetched;
    const kept = this.#kept.get(replay?.workingSet ?? "");
    const isKept = kept !== undefined && !kept.isWhole;
    if (isKept) {
      kept.pieces.push(piece);
      this.#options.link.send({ kind: "keep", slot: piece.slot });
    }
    this.#pending++;
    this.#installer.take(piece, replay?.clients ?? [], (wrong) => {
      this.#pending--;
      if (wrong !== undefined) this.#break(wrong);
      if (!isKept) this.#free(piece);
    });
  }

  /** A piece of the one that is under way is wrong. */
  #break(error: MinorfaultError): void {
    const clients = this.#fetched[0]?.clients;
    this.#wrong ??= { error, clients: new Set(clients) };
    clients?.clear();
  }

  /** What is there a piece after the other, so that several clients take turns; what is still to come with everybody. */
  #repeat(client: FetchClient, workingSet: string, kept: Kept): void {
    const { isWhole } = kept;
    const end: ReplayEnd | undefined = isWhole ? { kind: "replayed", workingSet } : undefined;
    const repeat: Repeat = { workingSet, clients: new Set([client]), end };
    if (!isWhole) this.#fetched[0]?.clients.add(client);
    this.#repeated.add(repeat);
    const pieces = [...kept.pieces].values();
    const next = (): void => {
      const piece = repeat.clients.has(client) ? pieces.next().value : undefined;
      if (piece !== undefined) {
        this.#installer.take(piece, repeat.clients, next);
        return;
      }
      this.#repeated.delete(repeat);
      if (repeat.end !== undefined && repeat.clients.has(client)) this.#tell(client, repeat.end);
    };
    next();
  }

  /** A set that could not be read to its end. */
  #discard(workingSet: string): void {
    const kept = this.#kept.get(workingSet);
    if (kept === undefined || kept.isWhole) return;
    this.#kept.delete(workingSet);
    this.#options.room.slots += kept.slots;
    for (const replay of this.#repeated) if (replay.workingSet === workingSet) replay.clients.clear();
    for (const piece of kept.pieces) this.#free(piece);
  }

  #free({ slot }: ReplayPiece): void {
    this.#options.link.send({ kind: "free", slot });
  }
}
