// This process among the others of its server: what it knows is what they know, and at any moment it may be its turn to
// serve, or to start a keeper.
//
//   born ──link: all entries──▶ standing by ──the one who serves is gone, the baton is ours──▶ serving
//
// What is booked goes to the keeper first and to the spare next, so that the spare never knows more than the keeper.

import { local, pidfdOpen, poll } from "../linux/index.ts";
import { Baton } from "./baton.ts";
import { FIRST_LINK, spawnProcess } from "./birth.ts";
import { report } from "./front-pipe.ts";
import { closeAll, Ledger } from "./ledger.ts";
import { type Arrived, type Entry, hear, linkPair, tell, tellEntry } from "./link.ts";
import type { Readiness } from "./readiness.ts";
import { step } from "./step.ts";

/** How long somebody who is gone may seem to have the baton: a process that was being started by it has it too. */
const BATON_MS = 2;
/** How long a new server may take until it could serve. */
const SUCCESSOR_MS = 20_000;

export interface CrewListener {
  /** All entries are known, or as many as anybody alive knows. */
  onSynced(): void;
  /** The baton is ours. `why` is a sentence. */
  onServe(why: string): void;
  /** While serving: one more entry. */
  onEntry(entry: Entry): void;
  onKeeper(pid: number, why: string): void;
  onSpare(pid: number): void;
}

export class Crew {
  readonly ledger = new Ledger();
  readonly #folder: string;
  readonly #readiness: Readiness;
  readonly #listener: CrewListener;
  #baton: Baton | undefined;
  #keeper = -1;
  #keeperPid: number = process.ppid;
  #peer = -1;
  #peerPid = 0;
  #isSynced = false;
  #isServing = false;
  #isWarm = false;
  #accepts = false;
  #nextId = 1;
  /** The link to the keeper of a server that is to take over, and what is to be said to whoever waits for it. */
  #successor: { readonly link: number; readonly settle: (error?: Error) => void } | undefined;

  constructor(folder: string, readiness: Readiness, listener: CrewListener) {
    this.#folder = folder;
    this.#readiness = readiness;
    this.#listener = listener;
    this.#setKeeper(FIRST_LINK);
  }

  get isServing(): boolean {
    return this.#isServing;
  }

  get keeperPid(): number {
    return this.#keeperPid;
  }

  /** The process that would take over; 0: none. */
  get sparePid(): number {
    return this.#peer >= 0 && this.#isServing ? this.#peerPid : 0;
  }

  /** It could serve now: asks for the baton, and whenever somebody lets it go. */
  standBy(): void {
    this.#isWarm = true;
    tell(this.#keeper, { kind: "ready", pid: process.pid });
    if (this.#peer >= 0) tell(this.#peer, { kind: "ready", pid: process.pid });
    this.#baton ??= new Baton(this.ledger.get("baton")!.descriptors[0]!);
    const holder = this.#baton.holder;
    if (holder === 0) this.#take("the server has started");
    else this.#await(holder);
  }

  /** Notes it here and with the others, in the place of one of the same id. */
  book(entry: Entry): void {
    this.ledger.put(entry);
    tellEntry(this.#keeper, entry);
    step("kept");
    if (this.#peer >= 0) tellEntry(this.#peer, entry);
    step("booked");
  }

  drop(id: string): void {
    for (const fd of this.ledger.get(id)?.descriptors ?? []) this.#readiness.unwatch(fd);
    this.ledger.drop(id);
    tell(this.#keeper, { kind: "drop", id });
    if (this.#peer >= 0) tell(this.#peer, { kind: "drop", id });
  }

  /** Whether connections are taken. */
  set accepts(on: boolean) {
    this.#accepts = on;
    tell(this.#keeper, { kind: "accept", on, next: this.#nextId });
  }

  /** Everything goes to another server, which takes over as from a dead one. Resolves never: this process ends. */
  async handOn(link: number): Promise<never> {
    await new Promise<void>((resolve, reject) => {
      const settle = (error?: Error): void => {
        clearTimeout(timer);
        if (error === undefined) resolve();
        else reject(error);
      };
      const timer = setTimeout(() => {
        this.#successor = undefined;
        this.#loseKeeper("the new server was not ready in time");
        settle(new Error("The new server was not ready in time"));
      }, SUCCESSOR_MS);
      this.#successor = { link, settle };
      // What they have been told is ours anyway, and what the keeper has to say is heard until its end.
      if (this.#peer >= 0) tell(this.#peer, { kind: "retire" });
      tell(this.#keeper, { kind: "retire" });
    });
    report({ event: "stopped", code: 0, why: "another server has taken over" });
    // The same way that everything else that can happen takes.
    process.kill(process.pid, "SIGKILL");
    return await new Promise<never>(() => undefined);
  }

  /** Ends the server: nobody is to take over. */
  end(): void {
    if (this.#peer >= 0) tell(this.#peer, { kind: "retire" });
    tell(this.#keeper, { kind: "retire" });
  }

  #await(holder: number): void {
    // Its number may be somebody else's by now.
    if (this.#take(`process ${holder}, which served, had ended`)) return;
    let pidfd: number;
    try {
      pidfd = pidfdOpen(holder);
    } catch {
      // It is gone already, or has not written its number yet.
      setTimeout(() => this.#try(holder), BATON_MS);
      return;
    }
    this.#readiness.watch(pidfd, () => {
      if (poll(local, [{ fd: pidfd }], 0)[0] === 0) return;
      this.#readiness.unwatch(pidfd);
      closeAll([pidfd]);
      this.#try(holder);
    });
  }

  #try(holder: number): void {
    const now = this.#baton!.holder;
    if (this.#take(`process ${holder}, which served, has ended`)) return;
    if (now === holder) setTimeout(() => this.#try(holder), BATON_MS);
    else this.#stepBack();
  }

  /** Somebody else has taken over, who does not know of us: whatever we know is old. */
  #stepBack(): void {
    if (this.#baton!.holder === this.#peerPid && this.#peer >= 0) {
      this.#await(this.#peerPid);
      return;
    }
    tell(this.#keeper, { kind: "retire" });
    process.exit(0);
  }

  #take(why: string): boolean {
    if (!this.#baton!.take()) return false;
    step("baton");
    this.#isServing = true;
    // What our predecessor has sent before it died.
    this.#hearPeer();
    this.#hearKeeper();
    this.#listener.onServe(why);
    if (this.#keeper < 0) this.#foundKeeper("the keeper has ended too");
    else tell(this.#keeper, { kind: "serving", pid: process.pid, marks: this.ledger.marks });
    step("serving");
    return true;
  }

  #setKeeper(link: number): void {
    this.#keeper = link;
    this.#readiness.watch(link, () => this.#hearKeeper());
  }

  #hearKeeper(): void {
    while (this.#keeper >= 0) {
      const arrived = hear(this.#keeper);
      if (arrived === "nothing") return;
      if (arrived === "end") {
        this.#loseKeeper("the keeper has ended");
        return;
      }
      this.#obey(arrived);
    }
  }

  #hearPeer(): void {
    while (this.#peer >= 0) {
      const arrived = hear(this.#peer);
      if (arrived === "nothing") return;
      if (arrived !== "end") {
        this.#obey(arrived);
        continue;
      }
      this.#readiness.unwatch(this.#peer);
      closeAll([this.#peer]);
      this.#peer = -1;
      this.#peerPid = 0;
    }
  }

  #obey(arrived: Arrived): void {
    const { message, descriptors } = arrived;
    if (message.kind === "put") this.#nextId = Math.max(this.#nextId, (Number(message.id) || 0) + 1);
    if (this.ledger.apply(arrived)) {
      const entry = message.kind === "put" && this.#isServing ? this.ledger.get(message.id) : undefined;
      if (entry !== undefined) this.#listener.onEntry(entry);
    } else if (message.kind === "synced") {
      this.#isSynced = true;
      this.#listener.onSynced();
    } else if (message.kind === "peer") {
      this.#setPeer(descriptors[0]!, message.marks);
    } else if (message.kind === "keeper") {
      this.#readiness.unwatch(this.#keeper);
      closeAll([this.#keeper]);
      this.#setKeeper(descriptors[0]!);
    } else if (message.kind === "ready") {
      this.#peerPid = message.pid;
      if (this.#isServing) this.#listener.onSpare(message.pid);
      this.#successor?.settle();
    } else if (message.kind === "retire") {
      process.exit(0);
    }
  }

  #setPeer(link: number, marks: readonly string[]): void {
    if (this.#peer >= 0) {
      this.#readiness.unwatch(this.#peer);
      closeAll([this.#peer]);
    }
    this.#peer = link;
    this.#readiness.watch(link, () => this.#hearPeer());
    // What the keeper did not know yet when it told the other one everything.
    if (this.#isServing) this.ledger.sync(link, marks);
    if (this.#isWarm) tell(link, { kind: "ready", pid: process.pid });
  }

  #loseKeeper(why: string): void {
    if (this.#keeper >= 0) {
      this.#readiness.unwatch(this.#keeper);
      closeAll([this.#keeper]);
      this.#keeper = -1;
    }
    // Nobody alive knows more: one that has been born into this takes what it has.
    if (!this.#isSynced && this.ledger.get("baton") !== undefined) {
      this.#isSynced = true;
      this.#listener.onSynced();
    }
    if (!this.#isServing) return;
    if (this.#successor === undefined) this.#foundKeeper(why);
    else this.#follow(this.#successor.link);
  }

  /** The keeper of the server that is to take over gets what ours had. It takes no connections before it serves. */
  #follow(link: number): void {
    this.#setKeeper(link);
    this.ledger.sync(link);
    tell(link, { kind: "serving", pid: process.pid, marks: this.ledger.marks });
  }

  #foundKeeper(why: string): void {
    const [ours, theirs] = linkPair();
    let spareEnd: number | undefined;
    if (this.#peer >= 0) {
      const [forKeeper, forSpare] = linkPair();
      spareEnd = forKeeper;
      // First: a spare that has to serve before the keeper lives will find nobody at its other end, and start one.
      tell(this.#peer, { kind: "keeper" }, [forSpare]);
      closeAll([forSpare]);
      // The old one may have told us of connections, and not the spare.
      for (const entry of this.ledger.of("connection")) tellEntry(this.#peer, entry);
    }
    step("keeper-link");
    this.#keeperPid = spawnProcess("keeper", this.#folder, theirs, { secondLink: spareEnd });
    closeAll(spareEnd === undefined ? [theirs] : [theirs, spareEnd]);
    this.#setKeeper(ours);
    this.ledger.sync(ours);
    tell(ours, { kind: "serving", pid: process.pid, marks: this.ledger.marks });
    this.accepts = this.#accepts;
    this.#listener.onKeeper(this.#keeperPid, why);
  }
}
