// This process among the others of its server: what it knows is what they know, and at any moment it may be its turn to
// serve, or to start a keeper.
//
//   born ──link: all entries──▶ standing by ──the one who serves is gone, the baton is ours──▶ serving
//
// What is booked goes to the keeper first and to the spare next, so that the spare never knows more than the keeper.

import { local, poll } from "../linux/index.ts";
import type { PlacementMode } from "../pager/index.ts";
import { Baton } from "./baton.ts";
import { FIRST_LINK, spawnProcess } from "./birth.ts";
import { report } from "./front-pipe.ts";
import { closeAll, Ledger } from "./ledger.ts";
import { type Arrived, type Entry, hear, linkPair, tell, tellEntry } from "./link.ts";
import type { Readiness } from "./readiness.ts";
import { step } from "./step.ts";
import { BATON_ID, CONFIG_ID } from "./texts.ts";

/** How often links are looked at although nothing is known of news. */
const GLANCE_MS = 250;
/** So often in a row nobody has told it who serves: had that one died, it would be its turn by now. */
const LONELY_GLANCES = 8;
/** How long a new server may take until it could serve. */
const SUCCESSOR_MS = 20_000;

export interface CrewListener {
  /** All entries are known, or as many as anybody alive knows. */
  onSynced(): void;
  /** While serving: everything has arrived that was said by or to a predecessor. */
  onComplete(): void;
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
  readonly #readiness: Pick<Readiness, "watch" | "unwatch">;
  readonly #listener: CrewListener;
  #knownBaton: Baton | undefined;
  #keeper = -1;
  #keeperPid: number = process.ppid;
  /** Of the keeper that we know of; see baton.ts. */
  #generation = 0;
  /** Nothing has come from it yet: who founded it may have died before it was told everything. */
  #isKeeperNew = false;
  #peer = -1;
  #peerPid = 0;
  /** The other one served before us: its line is only heard to the end. */
  #isPeerOld = false;
  #isStandingBy = false;
  #isHearingKeeper = false;
  #lonelyGlances = 0;
  #isSynced = false;
  #isServing = false;
  #isWarm = false;
  #isComplete = false;
  #accepts = false;
  #nextId = 1;
  #threadId = 0;
  /** The link to the keeper of a server that is to take over, and what is to be said to whoever waits for it. */
  #successor: { readonly link: number; readonly settle: (error?: Error) => void } | undefined;

  constructor(
    folder: string,
    readiness: Pick<Readiness, "watch" | "unwatch">,
    listener: CrewListener,
    link = FIRST_LINK,
  ) {
    this.#folder = folder;
    this.#readiness = readiness;
    this.#listener = listener;
    this.#setKeeper(link);
    // What lies there already is not waited for by a thread that has to start first.
    setImmediate(() => this.#hearKeeper());
    // The end of a keeper must not be missed, whatever else goes wrong here: nobody else would start another one.
    setInterval(() => {
      this.#hearKeeper();
      this.#hearPeer();
      this.#checkBelonging();
    }, GLANCE_MS).unref();
  }

  get isServing(): boolean {
    return this.#isServing;
  }

  get keeperPid(): number {
    return this.#keeperPid;
  }

  /** The process that would take over; 0: none. */
  get sparePid(): number {
    return this.#hasSpare ? this.#peerPid : 0;
  }

  get #baton(): Baton {
    this.#knownBaton ??= new Baton(this.ledger.get(BATON_ID)!.descriptors[0]!);
    return this.#knownBaton;
  }

  get #hasSpare(): boolean {
    return this.#isServing && this.#peer >= 0 && !this.#isPeerOld;
  }

  /** It could serve now: asks for the baton, and whenever who has it serves no more. */
  standBy(): void {
    this.#isStandingBy = true;
    this.#tellState();
    const { holder } = this.#baton;
    if (holder === 0) this.#take(holder, "the server has started") || this.#stepBack();
    else this.#await(holder);
  }

  /** It has done all that it can do ahead. */
  tellReady(): void {
    this.#isWarm = true;
    this.#tellState();
    if (this.#peer >= 0) tell(this.#peer, { kind: "ready", pid: process.pid });
  }

  /** The keeper is to know how far it is. */
  #tellState(): void {
    if (this.#isWarm) tell(this.#keeper, { kind: "ready", pid: process.pid });
    else if (this.#isStandingBy) tell(this.#keeper, { kind: "able" });
  }

  /** Which thread serves, so that a successor need not wait for the end of all of us; and where, which holds for that, too. */
  servesBy(tid: number, placement: PlacementMode): void {
    this.#threadId = tid;
    this.#baton.placement = placement;
    if (this.#isServing) this.#baton.serveBy(tid);
  }

  /** Where our predecessor's thread was best. */
  get placement(): PlacementMode | undefined {
    return this.#baton.placement;
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
    const watched = this.#baton.watch();
    if (this.#baton.holder !== holder) {
      closeAll(watched === undefined ? [] : [watched]);
      this.#stepBack();
      return;
    }
    if (watched === undefined) {
      this.#try(holder);
      return;
    }
    this.#readiness.watch(watched, () => {
      if (poll(local, [{ fd: watched }], 0)[0] === 0) return;
      this.#readiness.unwatch(watched);
      closeAll([watched]);
      this.#try(holder);
    });
  }

  /** The holder serves no more. */
  #try(holder: number): void {
    if (this.#isForgotten) process.exit(0);
    if (!this.#take(holder, `process ${holder}, which served, has ended`)) this.#stepBack();
  }

  /** Somebody else has taken over. If that one does not know of us, whatever we know is old. */
  #stepBack(): void {
    const { holder } = this.#baton;
    if (holder === this.#peerPid && this.#peer >= 0) {
      this.#await(holder);
      return;
    }
    this.#leave();
  }

  #take(holder: number, why: string): boolean {
    if (!this.#baton.take(holder)) return false;
    step("baton");
    this.#baton.serveBy(this.#threadId);
    // What our predecessor has sent before it died, first: that may be the link to a keeper which it has just founded. And
    // before that, who it is: that may be the keeper's last news.
    this.#hearKeeper();
    this.#hearPeer();
    this.#isPeerOld = true;
    this.#isServing = true;
    this.#hearKeeper();
    this.#listener.onServe(why);
    this.#isSynced = false;
    if (this.#keeper < 0) this.#foundKeeper("the keeper has ended too");
    else if (this.#isKeeperNew) this.#tellAll();
    else tell(this.#keeper, { kind: "serving", pid: process.pid, marks: this.ledger.marks });
    step("serving");
    return true;
  }

  #setKeeper(link: number): void {
    this.#keeper = link;
    this.#readiness.watch(link, () => this.#hearKeeper());
  }

  /** One message after the other: what comes of one may lead here again, and what the keeper said next is about what follows. */
  #hearKeeper(): void {
    if (this.#isHearingKeeper) return;
    this.#isHearingKeeper = true;
    try {
      while (this.#keeper >= 0) {
        const arrived = hear(this.#keeper);
        if (arrived === "nothing") return;
        if (arrived === "end") {
          this.#loseKeeper("the keeper has ended");
          return;
        }
        this.#isKeeperNew = false;
        this.#obey(arrived);
      }
    } finally {
      this.#isHearingKeeper = false;
    }
  }

  #hearPeer(): void {
    while (this.#peer >= 0 && poll(local, [{ fd: this.#peer }], 0)[0] !== 0) {
      // What the other one says of a connection comes after what the keeper has said of it, also where it is read sooner.
      this.#hearKeeper();
      if (this.#peer < 0) return;
      const arrived = hear(this.#peer);
      if (arrived === "nothing") return;
      if (arrived !== "end") {
        this.#obey(arrived);
        const { message } = arrived;
        const entry = this.#isServing && message.kind === "put" ? this.ledger.get(message.id) : undefined;
        if (entry !== undefined) tellEntry(this.#keeper, entry);
        continue;
      }
      this.#readiness.unwatch(this.#peer);
      closeAll([this.#peer]);
      this.#peer = -1;
      this.#peerPid = 0;
      this.#checkComplete();
    }
  }

  #checkComplete(): void {
    const isHearing = this.#peer >= 0 && this.#isPeerOld;
    if (!this.#isServing || this.#isComplete || !this.#isSynced || isHearing) return;
    this.#isComplete = true;
    this.#listener.onComplete();
  }

  #obey(arrived: Arrived): void {
    const { message, descriptors } = arrived;
    if (message.kind === "put") this.#nextId = Math.max(this.#nextId, (Number(message.id) || 0) + 1);
    if (this.ledger.apply(arrived)) {
      const entry = message.kind === "put" && this.#isServing ? this.ledger.get(message.id) : undefined;
      if (entry !== undefined) this.#listener.onEntry(entry);
    } else if (message.kind === "synced") {
      this.#generation = Math.max(this.#generation, message.generation);
      this.#isSynced = true;
      if (this.#isServing) this.#checkComplete();
      else this.#listener.onSynced();
    } else if (message.kind === "known") {
      this.#keeperPid = message.pid;
      this.ledger.sync(this.#keeper, this.#generation, message.marks);
    } else if (message.kind === "peer") {
      this.#setPeer(descriptors[0]!, message.marks);
    } else if (message.kind === "keeper") {
      this.#readiness.unwatch(this.#keeper);
      closeAll([this.#keeper]);
      this.#generation = message.generation;
      this.#setKeeper(descriptors[0]!);
      this.#isKeeperNew = true;
      this.#tellMissing(message.connections);
      this.#tellState();
    } else if (message.kind === "ready") {
      this.#peerPid = message.pid;
      if (this.#isServing) this.#listener.onSpare(message.pid);
      this.#successor?.settle();
    } else if (message.kind === "retire") {
      process.exit(0);
    }
  }

  /** A connection of which the keeper that died had told us alone: who serves hears of it from us. */
  #tellMissing(known: readonly string[]): void {
    for (const entry of this.ledger.of("connection"))
      if (!known.includes(entry.id)) tellEntry(this.#peer, entry);
  }

  #setPeer(link: number, marks: readonly string[]): void {
    // It comes when the one before is gone: the rest of what that one has said, though its end may not be seen yet.
    this.#hearPeer();
    if (this.#peer >= 0) {
      this.#readiness.unwatch(this.#peer);
      closeAll([this.#peer]);
    }
    this.#peer = link;
    this.#isPeerOld = false;
    this.#checkComplete();
    this.#readiness.watch(link, () => this.#hearPeer());
    // What the keeper did not know yet when it told the other one everything.
    if (this.#isServing) {
      // Marks do not tell one configuration from the next.
      const config = this.ledger.get(CONFIG_ID);
      if (config !== undefined) tellEntry(link, config);
      this.ledger.sync(link, this.#generation, marks);
    }
    if (this.#isWarm) tell(link, { kind: "ready", pid: process.pid });
  }

  #loseKeeper(why: string): void {
    if (this.#keeper >= 0) {
      this.#readiness.unwatch(this.#keeper);
      closeAll([this.#keeper]);
      this.#keeper = -1;
    }
    if (this.#isServing) {
      if (this.#successor === undefined) this.#foundKeeper(why);
      else this.#follow(this.#successor.link);
      return;
    }
    if (this.ledger.get(BATON_ID) === undefined) process.exit(0);
    // Nobody alive knows more, or whoever does will not tell us: that shows when it is our turn.
    if (!this.#isSynced) {
      this.#isSynced = true;
      this.#listener.onSynced();
    }
  }

  /** Of those who were born when keeper and pager died together, one too many may live: whom nobody who serves knows. */
  #checkBelonging(): void {
    if (!this.#isStandingBy || this.#isServing) return;
    if (this.#isForgotten) process.exit(0);
    const isAlone = this.#peer < 0 && this.#baton.holder !== 0;
    this.#lonelyGlances = isAlone ? this.#lonelyGlances + 1 : 0;
    if (this.#lonelyGlances > LONELY_GLANCES) this.#leave();
  }

  #leave(): never {
    tell(this.#keeper, { kind: "retire" });
    process.exit(0);
  }

  /** Another keeper has been founded without our knowing: what we know is old, and others have been born. */
  get #isForgotten(): boolean {
    return this.#keeper < 0 && this.#baton.generation > this.#generation;
  }

  /** The keeper of the server that is to take over gets what ours had. It takes no connections before it serves. */
  #follow(link: number): void {
    // Ours would run the old program there.
    for (const { id } of this.ledger.of("reserve")) this.ledger.drop(id);
    this.#setKeeper(link);
    this.#generation++;
    this.#tellAll();
  }

  #foundKeeper(why: string): void {
    const [ours, theirs] = linkPair();
    const generation = this.#generation + 1;
    let spareEnd: number | undefined;
    if (this.#hasSpare) {
      const [forKeeper, forSpare] = linkPair();
      spareEnd = forKeeper;
      const connections = this.ledger.of("connection");
      const ids = connections.map(({ id }) => id);
      // First: a spare that has to serve before the keeper lives will find nobody at its other end, and start one.
      tell(this.#peer, { kind: "keeper", generation, connections: ids }, [forSpare]);
      closeAll([forSpare]);
      // The old one may have told us of connections, and not the spare.
      for (const entry of connections) tellEntry(this.#peer, entry);
    }
    // Or the spare of one, and not us: that one keeps its number, by which we are about to hear of it.
    this.#nextId++;
    step("keeper-link");
    this.#keeperPid = spawnProcess("keeper", this.#folder, theirs, { secondLink: spareEnd });
    step("keeper-spawned");
    closeAll(spareEnd === undefined ? [theirs] : [theirs, spareEnd]);
    this.#setKeeper(ours);
    this.#generation = generation;
    this.#tellAll();
    step("keeper-told");
    this.accepts = this.#accepts;
    this.#listener.onKeeper(this.#keeperPid, why);
  }

  /** Into a keeper that has nothing yet. It waits in its link until the keeper lives, whatever becomes of us. */
  #tellAll(): void {
    this.ledger.sync(this.#keeper, this.#generation);
    this.#baton.generation = this.#generation;
    tell(this.#keeper, { kind: "serving", pid: process.pid, marks: this.ledger.marks });
  }
}
