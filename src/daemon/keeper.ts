// The keeper: accepts connections, holds every descriptor of the server, and has a process that serves and one that would.
// It reads nothing of what peers send and understands nothing of what it keeps; so there is little that could kill it.
//
//   listeners ──accept──▶ ┌────────┐ ── every connection, by all links ──▶ pager (serves)
//                         │ ledger │ ◀── what the pager books ────────────   │ lifeline
//                         └────────┘ ── all of it, once ──────────────────▶ spare (warm)
//                                    ── nothing yet ──────────────────────▶ reserve (loaded)
//
// When the pager dies, the spare takes over by itself (baton.ts), and gets what it may have missed; the reserve, which has
// only its program and knows nothing, becomes the new spare, and serves at once if the old one has died as well. The link
// to it is in the ledger: so it outlives the keeper that bore it.
// When the keeper dies, whoever serves starts another one and puts its own ledger into it. If nobody can be made to serve,
// the guests are ended: closing the last descriptor would let them read zeros where their memory should be.

import { ERRNO } from "../abi/errno.ts";
import { MinorfaultError } from "../base/errors.ts";
import { accept, local, peer, peerPidfd, poll, reap } from "../linux/index.ts";
import { spawnProcess } from "./birth.ts";
import { endGuest } from "./endings.ts";
import { report } from "./front-pipe.ts";
import { closeAll, Ledger } from "./ledger.ts";
import { type Arrived, type Entry, hear, linkPair, tell, tellEntry } from "./link.ts";
import { step } from "./step.ts";

/** LIMIT: connections of one listener that nobody has understood yet; more wait in the kernel's backlog. */
const PENDING_MAX = 64;
/** LIMIT: processes in a row that died before one of them served. */
const FAILURES_MAX = 10;
/** How long a process that has just begun to serve has the machine for itself, before another one is born. */
const BREATH_MS = 100;
/** After the death of a process that was only in reserve, before the next one is born. */
const RESERVE_MS = 1000;
/** A pager and its spare may die together; of births that fail after that, how long to wait before the next one. */
const FAILURES_FREE = 2;
const FAILURE_MS = 200;

/** A process that serves or could. */
interface Follower {
  readonly link: number;
  isServing: boolean;
  /** It could serve. */
  isAble: boolean;
}

/** What a keeper writes beside a connection. */
export interface ConnectionNote {
  readonly listener: string;
  readonly pid: number;
  readonly uid: number;
  readonly gid: number;
  /** Milliseconds since the epoch. */
  readonly at: number;
}

export class Keeper {
  readonly #folder: string;
  readonly #ledger = new Ledger();
  readonly #followers: Follower[] = [];
  readonly #children = new Set<number>();
  #nextReserve = 1;
  #noReserveBefore = 0;
  /** Who founds this keeper: the command line, or whoever serves. */
  #founder: number;
  #isSynced = false;
  #generation = 0;
  #accepts = false;
  #nextId = 1;
  #failures = 0;
  #notBefore = 0;
  /** Who serves has to be told what its predecessor has booked, once that one has said everything. */
  #debt: { readonly from: number; readonly to: number; readonly marks: readonly string[] } | undefined;

  /** `spare`: the link to a process that would serve, where there is one already. */
  constructor(folder: string, founder: number, spare: number | undefined) {
    this.#folder = folder;
    this.#founder = founder;
    for (const link of spare === undefined ? [founder] : [founder, spare]) this.#follow(link);
  }

  /** Until it is told to end, or has to give up; answers the exit code. */
  run(): number {
    for (;;) {
      if (this.#failures > FAILURES_MAX) return this.#giveUp();
      if (this.#followers.length === 0 && !this.#isSynced) {
        // Whoever founded us died over it. Nobody who is alive tells us more, and with nothing there is nothing to keep.
        if (this.#ledger.marks.length === 0) return 0;
        this.#isSynced = true;
      }
      this.#heal();
      this.#provide();
      const links = this.#followers.map(({ link }) => link);
      const entries = [...this.#ledger.of("reserve"), ...this.#openListeners()];
      const watched = [...links, ...entries.map(({ descriptors }) => descriptors[0]!)];
      const ready = poll(
        local,
        watched.map((fd) => ({ fd })),
        this.#waitMs(),
      );
      for (const [index, bits] of ready.entries()) {
        if (bits === 0) continue;
        if (index >= links.length) this.#look(entries[index - links.length]!);
        else if (!this.#listen(links[index]!)) return 0;
      }
      this.#bury();
    }
  }

  #waitMs(): number {
    const births = [this.#needsFollower && this.#notBefore, this.#wantsReserve && this.#noReserveBefore];
    const next = Math.min(...births.map((at) => at || Number.POSITIVE_INFINITY));
    return next === Number.POSITIVE_INFINITY ? -1 : Math.max(1, next - performance.now());
  }

  /** One that serves and one that would. The second one is born when the first one serves: it would only be in its way. */
  #heal(): void {
    if (!this.#needsFollower || performance.now() < this.#notBefore) return;
    const link = this.#callReserve() ?? this.#bearNow();
    step("spare-born");
    this.#ledger.sync(link, this.#generation);
    step("synced");
    this.#follow(link);
    this.#introduce();
  }

  get #needsFollower(): boolean {
    const [one, other] = this.#followers;
    return this.#isSynced && other === undefined && (one?.isServing ?? true);
  }

  /** One that has its program when it is needed. It is born as soon as there are two that could serve. */
  #provide(): void {
    if (!this.#wantsReserve || performance.now() < this.#noReserveBefore) return;
    const [ours, theirs] = linkPair();
    const id = `reserve-${process.pid}-${this.#nextReserve++}`;
    const entry: Entry = { id, type: "reserve", text: "", descriptors: [ours] };
    this.#ledger.put(entry);
    // The one who serves comes first: it founds the next keeper, and tells the other one what that has not got.
    const followers = this.#followers.toSorted((a, b) => Number(b.isServing) - Number(a.isServing));
    for (const { link } of followers) tellEntry(link, entry);
    // Last: nobody is there whom nobody knows.
    this.#bear(theirs);
  }

  get #wantsReserve(): boolean {
    const [one, other] = this.#followers;
    const isPossible = this.#isSynced && one !== undefined && (other?.isAble ?? false);
    return isPossible && this.#ledger.of("reserve").length === 0;
  }

  #bearNow(): number {
    const [ours, theirs] = linkPair();
    this.#bear(theirs);
    return ours;
  }

  /** The link to a process that was in reserve. Nobody else has it any more. */
  #callReserve(): number | undefined {
    const [reserve] = this.#ledger.of("reserve");
    return reserve && this.#release(reserve);
  }

  #release({ id }: Entry): number {
    for (const { link } of this.#followers) tell(link, { kind: "drop", id });
    return this.#ledger.release(id)[0]!;
  }

  /** It says nothing before it is called: it has ended. */
  #loseReserve(reserve: Entry): void {
    closeAll([this.#release(reserve)]);
    this.#noReserveBefore = performance.now() + RESERVE_MS;
  }

  /** A process that knows nothing yet, with its end of the link to us. */
  #bear(link: number): void {
    this.#children.add(spawnProcess("pager", this.#folder, link));
    closeAll([link]);
  }

  #follow(link: number): void {
    this.#followers.push({ link, isServing: false, isAble: false });
  }

  /** Gives the two a line to each other. */
  #introduce(): void {
    const [one, other] = this.#followers;
    if (one === undefined || other === undefined) return;
    const ends = linkPair();
    const { marks } = this.#ledger;
    tell(one.link, { kind: "peer", marks }, [ends[0]]);
    tell(other.link, { kind: "peer", marks }, [ends[1]]);
    closeAll(ends);
  }

  /** What a link has to say; false when it says that this is the end. */
  #listen(link: number): boolean {
    for (;;) {
      const arrived = hear(link);
      if (arrived === "nothing") return true;
      if (arrived === "end") {
        this.#lose(link);
        return true;
      }
      if (arrived.message.kind === "retire") return false;
      this.#obey(link, arrived);
    }
  }

  #obey(link: number, arrived: Arrived): void {
    const { message } = arrived;
    if (this.#ledger.apply(arrived)) return;
    if (message.kind === "synced") {
      this.#isSynced = true;
      this.#generation = message.generation;
    } else if (message.kind === "accept") {
      this.#accepts = message.on;
      this.#nextId = Math.max(this.#nextId, message.next);
    } else if (message.kind === "able" || message.kind === "ready") {
      for (const follower of this.#followers) if (follower.link === link) follower.isAble = true;
    } else if (message.kind === "serving") {
      const before = this.#followers.find((follower) => follower.isServing && follower.link !== link);
      for (const follower of this.#followers) follower.isServing = follower.link === link;
      this.#failures = 0;
      this.#notBefore = performance.now() + BREATH_MS;
      // Its predecessor may have died between telling us and telling it. What that one has said is heard to the end.
      if (before === undefined) this.#compare(link, message.marks);
      else this.#debt = { from: before.link, to: link, marks: message.marks };
    }
  }

  /** Tells what the one who serves has not got, and asks for what we have not: who founded us may have died over it. */
  #compare(link: number, marks: readonly string[]): void {
    const known = this.#ledger.marks;
    this.#ledger.sync(link, this.#generation, marks);
    tell(link, { kind: "known", pid: process.pid, marks: known });
  }

  #lose(link: number): void {
    if (this.#debt?.from === link) {
      this.#compare(this.#debt.to, this.#debt.marks);
      this.#debt = undefined;
    }
    const at = this.#followers.findIndex((follower) => follower.link === link);
    const [lost] = this.#followers.splice(at, 1);
    closeAll([link]);
    if (link === this.#founder) {
      // The number will be another one's.
      this.#founder = -1;
      if (!lost!.isServing) return;
    }
    if (this.#followers.some(({ isServing }) => isServing)) return;
    this.#failures++;
    this.#notBefore = this.#failures > FAILURES_FREE ? performance.now() + FAILURE_MS : 0;
  }

  #openListeners(): readonly Entry[] {
    if (!this.#accepts) return [];
    const pending = new Map<string, number>();
    for (const { text } of this.#ledger.of("connection")) {
      const { listener } = JSON.parse(text) as ConnectionNote;
      pending.set(listener, (pending.get(listener) ?? 0) + 1);
    }
    return this.#ledger.of("listener").filter(({ id }) => (pending.get(id) ?? 0) < PENDING_MAX);
  }

  /** Something is there to be read. */
  #look(entry: Entry): void {
    // Since the poll it may have been dropped, or told again with other descriptors: then these numbers are anybody's.
    if (this.#ledger.get(entry.id) !== entry) return;
    if (entry.type === "listener") this.#accept(entry);
    else this.#loseReserve(entry);
  }

  #accept({ id: listener, descriptors }: Entry): void {
    // Whoever had come may have gone again.
    const socket = tryAccept(descriptors[0]!);
    if (socket === undefined) return;
    step("accepted");
    const { pid, uid, gid } = peer(local, socket);
    const pidfd = peerPidfd(local, socket);
    if (pidfd === undefined) {
      closeAll([socket]);
      return;
    }
    const note: ConnectionNote = { listener, pid, uid, gid, at: Date.now() };
    const id = String(this.#nextId++);
    const entry: Entry = { id, type: "connection", text: JSON.stringify(note), descriptors: [socket, pidfd] };
    this.#ledger.put(entry);
    // The one who serves comes last: whatever it says of the connection, the other one has heard of it before.
    const followers = this.#followers.toSorted((a, b) => Number(a.isServing) - Number(b.isServing));
    for (const { link } of followers) {
      tellEntry(link, entry);
      step("told");
    }
  }

  /** Children that have ended: Node's own loop never runs here, so it is us who wait for them. */
  #bury(): void {
    for (const pid of this.#children) if (reap(pid) !== undefined) this.#children.delete(pid);
  }

  #giveUp(): number {
    const reason = `${this.#failures} pagers in a row died before they served`;
    for (const entry of this.#ledger.of("guest")) endGuest(this.#folder, entry, reason);
    report({ event: "stopped", code: 1, why: reason });
    return 1;
  }
}

function tryAccept(listener: number): number | undefined {
  try {
    return accept(local, listener);
  } catch (error) {
    // Out of descriptors or memory, or reset while it waited: the others go on.
    if (error instanceof MinorfaultError && error.errno !== ERRNO.EBADF) return undefined;
    throw error;
  }
}
