// The table of guests of the process that serves: hand-overs become guests here, and guests end here.
//
// The order in which a guest comes to be: its hand-over is checked, it is booked with the keeper and with the spare, it is
// served, its message is taken out of the socket, and its peer is answered. Whoever dies in between, the next one finds
// either the message or the entry.

import { EventEmitter } from "node:events";
import { setTimeout as delay } from "node:timers/promises";
import { MinorfaultError } from "../base/errors.ts";
import { local, memfd } from "../linux/index.ts";
import type { PagerEnd, PagerHost, PagerSource, WarmSource } from "../pager/index.ts";
import { type ImageConfig, limitsOf, type ServerConfig, type ServerLimits, withLimits } from "./config.ts";
import type { Crew } from "./crew.ts";
import { consumeAll, Door, type HandedOver, sendLine } from "./door.ts";
import { checkExpected, Doors, imageOf } from "./doors.ts";
import { report } from "./front-pipe.ts";
import { byNeed, Guest, giveUp, stateBytes } from "./guest.ts";
import type {
  EndReason,
  ExpectedGuest,
  GuestEventName,
  GuestEvents,
  GuestListener,
  GuestStatus,
  GuestTable,
  ImageStatus,
  ServerCounters,
  ServerHealth,
  Ticket,
} from "./guests.ts";
import { endsWithConnection, parseHandOver } from "./hand-over.ts";
import { Images } from "./images.ts";
import type { ConnectionNote } from "./keeper.ts";
import { closeAll } from "./ledger.ts";
import type { Entry } from "./link.ts";
import { canonicalImage, type Policy, policyOrOwn } from "./policy.ts";
import type { PolicyFile } from "./policy-file.ts";
import type { Readiness } from "./readiness.ts";
import { practise, rehearse } from "./rehearsal.ts";
import { checkName, closeListener, imageListener, ticketListener } from "./sockets.ts";
import { step } from "./step.ts";
import type { Tally } from "./tally.ts";
import { CONTROL_ID, configEntry, type Door as DoorNote, GUEST_FD, type GuestNote } from "./texts.ts";
import { Throttle } from "./throttle.ts";

/** LIMIT: guests that are announced and have not come. */
const EXPECTED_MAX = 1024;
const EXPECTED_MS = 60_000;
/** LIMIT: names of guests, in characters. */
const NAME_MAX = 128;
const SHUTDOWN_MS = 30_000;
/** How long a guest may wait for its image when its pager has died, and how often that is tried. */
const ADOPTION_MS = 5000;
const ADOPTION_RETRY_MS = 250;
/** How long guests that wait at a page are taken over alone, before the others. */
const HEAD_START_MS = 5;

export class Guests implements GuestTable {
  readonly #crew: Crew;
  readonly #host: PagerHost;
  readonly #tally: Tally;
  readonly #readiness: Readiness;
  readonly #door: Door;
  readonly #images: Images;
  readonly #guests = new Map<string, Guest>();
  readonly #events = new EventEmitter();
  readonly #doors: Doors;
  readonly #refusals = new Throttle((count) => report({ event: "refusals", count }));
  readonly #since = Date.now();
  #config: ServerConfig;
  #policy: Policy;
  #isEnding = false;
  /** Connections are looked at: nobody else can have booked one of them any more. */
  #isOpen = false;
  /** Being adopted or admitted, and whose they are. */
  readonly #starting = new Map<string, number>();

  constructor(crew: Crew, host: PagerHost, readiness: Readiness, tally: Tally, config: ServerConfig) {
    this.#crew = crew;
    this.#host = host;
    this.#readiness = readiness;
    this.#tally = tally;
    this.#config = config;
    this.#policy = policyOrOwn(config.policy);
    this.#images = new Images(host);
    this.#doors = new Doors(crew);
    this.#door = new Door(readiness, {
      // The limits of now.
      get limits() {
        return limits();
      },
      door: (listener) => this.#doors.get(listener),
      admit: (handedOver) => this.#admit(handedOver),
      succeed: (link) => void this.#crew.handOn(link).catch((error: Error) => this.#complain(error)),
      onRefused: (entry, note, error) => this.#onRefused(entry, note, error),
      onGone: ({ id }) => this.#crew.drop(id),
    });
    const limits = (): ServerLimits => this.limits;
  }

  /** Opens the images that are to be warm, and rehearses with them while it has no guests; failures are in their status. */
  async prepare(): Promise<void> {
    for (const image of this.#config.images) this.#images.add(image);
    const warm = this.#config.images.filter((image) => image.warm !== false);
    await Promise.all(warm.map((image) => this.#warmUp(image).catch((error) => this.#complain(error))));
  }

  async #warmUp(image: ImageConfig): Promise<void> {
    const { byteLength } = await this.#images.open(image.name);
    const isLate = () => this.#crew.isServing && this.#guests.size + this.#starting.size > 0;
    if (isLate()) return;
    await rehearse(this.#host, image, byteLength, (pager) => {
      this.#crew.servesBy(pager.threadId, pager.placement.mode);
      return isLate();
    });
  }

  /** It is our turn: takes over every guest that there is. Answers how many. */
  async adopt(): Promise<number> {
    const { waiting, others } = byNeed(this.#crew.ledger.of("guest"));
    const adopting = waiting.map((entry) => this.#adoptOne(entry));
    if (waiting.length > 0) await Promise.race([Promise.all(adopting), delay(HEAD_START_MS)]);
    await Promise.all([...adopting, ...others.map((entry) => this.#adoptOne(entry))]);
    return waiting.length + others.length;
  }

  /** What came to be known after we began to serve. */
  async take(entry: Entry): Promise<void> {
    if (entry.type === "guest") await this.#adoptOne(entry);
    else if (entry.type === "connection" && this.#isOpen) this.#enter(entry);
  }

  /** Begins with the connections that nobody has understood yet, by what our predecessor was told last. */
  open(config: ServerConfig): void {
    this.#config = config;
    this.#policy = policyOrOwn(config.policy);
    this.#images.reconcile(config.images);
    this.#doors.openAll();
    this.#isOpen = true;
    for (const entry of this.#crew.ledger.of("connection")) this.#enter(entry);
  }

  /** Gets working sets ready for guests that are yet to come, and itself. */
  getReady(): void {
    this.#images.keepWorkingSets();
    void practise(this.#host, this.#config.images, this.#images, () => this.#guests.size === 0);
  }

  // ── what operators see ──

  list(): readonly GuestStatus[] {
    return [...this.#guests.values()].map(({ status }) => status);
  }

  get(id: string): GuestStatus | undefined {
    return this.#guests.get(id)?.status;
  }

  images(): readonly ImageStatus[] {
    return this.#images.names.map((name) => this.#imageStatus(name));
  }

  expected(): readonly ExpectedGuest[] {
    return this.#doors.tickets;
  }

  get counters(): ServerCounters {
    return this.#tally.read();
  }

  get health(): ServerHealth {
    const { sparePid, keeperPid, isServing } = this.#crew;
    const why = this.#isEnding ? "The server is ending" : isServing ? undefined : "It stands by";
    return {
      ready: why === undefined,
      ...(why === undefined ? {} : { why }),
      pid: process.pid,
      keeperPid,
      ...(sparePid === 0 ? {} : { sparePid }),
      since: this.#since,
      serverSince: this.#tally.since,
    };
  }

  get limits(): ServerLimits {
    return limitsOf(this.#config);
  }

  setLimits(limits: Partial<ServerLimits>): ServerLimits {
    this.#configure(withLimits(this.#config, limits));
    return this.limits;
  }

  setPolicy(policy: PolicyFile): void {
    this.#policy = policyOrOwn(policy);
    this.#configure({ ...this.#config, policy });
  }

  async expect(ticket: Ticket): Promise<ExpectedGuest> {
    if (this.#isEnding) throw new MinorfaultError("ERR_CLOSED", "The server is ending");
    if (this.expected().length >= EXPECTED_MAX) {
      throw new MinorfaultError(
        "ERR_LIMIT",
        `${EXPECTED_MAX} guests are announced already and have not come`,
      );
    }
    if (ticket.name !== undefined && ticket.name.length > NAME_MAX) {
      throw new MinorfaultError("ERR_BAD_ARGUMENT", `A guest's name has at most ${NAME_MAX} characters`);
    }
    // Known to be there before anybody relies on it.
    await this.#images.open(ticket.image);
    const { withinMs = EXPECTED_MS } = ticket;
    const listener = ticketListener(this.#config.folder, ticket, Date.now() + withinMs);
    this.#doors.add(listener);
    return listener.door.ticket;
  }

  async forget(id: string): Promise<void> {
    const door = this.#doors.get(id);
    if (door?.door !== "ticket") throw new MinorfaultError("ERR_NO_SUCH", `No guest ${id} is expected`);
    this.#doors.shut(id);
  }

  async addImage(config: ImageConfig): Promise<ImageStatus> {
    checkName(config.name);
    if (this.#images.isNamed(config.name)) {
      throw new MinorfaultError("ERR_BUSY", `An image is called ${config.name} already`);
    }
    const listener = imageListener(this.#config.folder, config.name);
    this.#images.add(config);
    this.#configure({ ...this.#config, images: [...this.#config.images, config] });
    this.#doors.add(listener);
    const opening = config.warm === false ? undefined : this.#images.open(config.name);
    await opening?.catch((error) => this.removeImage(config.name).then(() => Promise.reject(error)));
    return this.#imageStatus(config.name);
  }

  async removeImage(name: string): Promise<void> {
    if (!this.#images.isNamed(name)) throw new MinorfaultError("ERR_NO_SUCH", `No image is called ${name}`);
    this.#doors.shutImage(name);
    this.#images.remove(name);
    this.#configure({ ...this.#config, images: this.#config.images.filter((image) => image.name !== name) });
  }

  async warm(image: string): Promise<ImageStatus> {
    await this.#images.open(image);
    return this.#imageStatus(image);
  }

  async drain(id: string, { signal }: { readonly signal?: AbortSignal } = {}): Promise<void> {
    const guest = this.#find(id);
    guest.state = "draining";
    try {
      await guest.pager.installAll(signal === undefined ? {} : { signal });
    } catch (error) {
      guest.state = "serving";
      throw error;
    }
    guest.leaving = "installed";
    guest.release();
    await guest.pager.close();
  }

  async drop(id: string, reason: string): Promise<void> {
    const guest = this.#find(id);
    guest.leaving = "dropped";
    giveUp(this.#config.folder, guest.entry, reason);
    await guest.pager.close();
  }

  async shutdown({ withinMs = SHUTDOWN_MS }: { readonly withinMs?: number } = {}): Promise<void> {
    if (this.#isEnding) return;
    this.#isEnding = true;
    this.#crew.accepts = false;
    this.#door.close("The server is ending");
    const signal = AbortSignal.timeout(withinMs);
    const guests = [...this.#guests.keys()];
    const drained = await Promise.allSettled(guests.map((id) => this.drain(id, { signal })));
    let ended = 0;
    for (const [index, id] of guests.entries()) {
      if (drained[index]!.status === "fulfilled" || !this.#guests.has(id)) continue;
      ended++;
      await this.drop(id, `The server ended, and the guest could not be drained within ${withinMs} ms`);
    }
    this.#doors.shutAll();
    for (const { id, text } of this.#crew.ledger.of("kept")) {
      if (id === CONTROL_ID) closeListener(JSON.parse(text) as DoorNote);
    }
    this.#crew.end();
    const why =
      ended === 0
        ? "every guest has all it needs"
        : `guests that could not be drained, and were ended: ${ended}`;
    report({ event: "stopped", code: ended === 0 ? 0 : 1, why });
    process.exit(0);
  }

  on<Name extends GuestEventName>(name: Name, listener: GuestListener<Name>): void {
    this.#events.on(name, listener);
  }

  off<Name extends GuestEventName>(name: Name, listener: GuestListener<Name>): void {
    this.#events.off(name, listener);
  }

  emit<Name extends GuestEventName>(name: Name, event: GuestEvents[Name]): void {
    // Not `emit` of the emitter: whoever listens is no reason not to go on, and "error" is nothing special here.
    for (const listener of this.#events.listeners(name) as GuestListener<Name>[]) {
      try {
        listener(event);
      } catch (error) {
        this.#complain(error);
      }
    }
  }

  // ── hand-overs ──

  #enter(entry: Entry): void {
    const { pid, uid, listener } = JSON.parse(entry.text) as ConnectionNote;
    if (!this.#door.enter(entry)) return;
    this.#tally.count("connections");
    this.emit("connected", { image: imageOf(this.#doors.get(listener)), pid, uid });
  }

  async #admit(handedOver: HandedOver): Promise<object> {
    const { entry, note, door, since } = handedOver;
    let image: ImageConfig;
    let warm: WarmSource;
    let booked: Entry;
    try {
      image = this.#images.find(imageOf(door));
      warm = await this.#images.open(image.name);
      booked = this.#prepare(handedOver, image, warm);
    } catch (error) {
      closeAll([handedOver.uffd]);
      throw error;
    }
    const { byteLength, workingSets } = warm;
    if (door.door === "ticket") this.#doors.shut(note.listener);
    this.#starting.set(entry.id, note.uid);
    try {
      // From here on the ledger has the descriptors.
      this.#crew.book(booked);
      const guest = await this.#start(booked, false);
      step("started");
      this.#tally.count("handOvers");
      const { id } = entry;
      report({ event: "guest", id, image: image.name, pid: note.pid, ms: performance.now() - since });
      this.emit("serving", { guest: guest.status });
      return { guest: id, image: image.name, byteLength, workingSets };
    } finally {
      this.#starting.delete(entry.id);
    }
  }

  /** Checks everything, and makes the entry of it. */
  #prepare(
    { entry, note, door, text, uffd, since }: HandedOver,
    { name, source, plan }: ImageConfig,
    { byteLength, content }: WarmSource,
  ): Entry {
    const regions = parseHandOver(text, byteLength, this.limits);
    this.#checkPeer(note, door, source);
    const [socket, pidfd] = entry.descriptors;
    const ticket = door.door === "ticket" ? door.ticket : undefined;
    const guestNote: GuestNote = {
      ...(ticket?.name === undefined ? {} : { name: ticket.name }),
      image: name,
      source,
      ...(content === undefined ? {} : { content }),
      ...(plan === undefined ? {} : { plan }),
      ...(ticket === undefined ? {} : { ticket }),
      pid: note.pid,
      uid: note.uid,
      gid: note.gid,
      regions,
      since: Date.now(),
      handOverMs: performance.now() - since,
      ...(endsWithConnection(text) ? { endsWithConnection: true } : {}),
    };
    const state = memfd(local, "minorfault-state", stateBytes(regions));
    const descriptors = [uffd, state, socket!, pidfd!];
    return { id: entry.id, type: "guest", text: JSON.stringify(guestNote), descriptors };
  }

  /** @throws ERR_NOT_ALLOWED, ERR_LIMIT */
  #checkPeer({ pid, uid, gid }: ConnectionNote, door: DoorNote, source: PagerSource): void {
    if (this.#isEnding) throw new MinorfaultError("ERR_CLOSED", "The server is ending");
    const uids = [...this.#starting.values(), ...[...this.#guests.values()].map((guest) => guest.note.uid)];
    if (uids.length >= this.limits.guestsMax) {
      throw new MinorfaultError("ERR_LIMIT", `The server has ${uids.length} guests already`);
    }
    checkExpected(door, pid, uid);
    if (!("url" in source)) return;
    const guestsOfPeer = uids.filter((each) => each === uid).length;
    const verdict = this.#policy.check({ uid, gid }, canonicalImage(source.url), guestsOfPeer);
    if (!verdict.allowed) throw new MinorfaultError("ERR_NOT_ALLOWED", verdict.reason);
  }

  #onRefused(entry: Entry, { pid, uid, listener }: ConnectionNote, error: MinorfaultError): void {
    this.#crew.drop(entry.id);
    this.#tally.refuse(error.code);
    const image = imageOf(this.#doors.get(listener));
    if (this.#refusals.admits()) {
      report({ event: "refused", image, pid, code: error.code, message: error.message });
    }
    this.emit("refused", { image, pid, uid, error });
  }

  // ── guests ──

  /** One that can't be taken over now is tried again, for a while: a store may be away for a moment. */
  async #adoptOne(entry: Entry, until = performance.now() + ADOPTION_MS): Promise<void> {
    if (this.#crew.ledger.get(entry.id) !== entry || this.#guests.has(entry.id)) return;
    this.#starting.set(entry.id, (JSON.parse(entry.text) as GuestNote).uid);
    try {
      const guest = await this.#start(entry, true);
      step("adopted");
      this.#welcomeAgain(guest);
    } catch (error) {
      const known = error instanceof MinorfaultError ? error : undefined;
      const isHopeless = known?.kind !== "source" || known.code === "ERR_SOURCE_CHANGED";
      if (isHopeless || performance.now() > until) {
        // Nobody else could serve it either.
        const why = `It could not be taken over: ${error instanceof Error ? error.message : error}`;
        this.#onEnded(entry, undefined, "failed", why);
      } else {
        setTimeout(() => void this.#adoptOne(entry, until), ADOPTION_RETRY_MS);
      }
    } finally {
      this.#starting.delete(entry.id);
    }
  }

  /** Our predecessor may have died before it cleared the hand-over, and before it answered. */
  #welcomeAgain({ entry, note }: Guest): void {
    const socket = entry.descriptors[GUEST_FD.SOCKET]!;
    consumeAll(socket);
    const { byteLength = 0, workingSets = [] } = this.#images.status(note.image);
    sendLine(socket, { guest: entry.id, image: note.image, byteLength, workingSets });
  }

  async #start(entry: Entry, adopt: boolean): Promise<Guest> {
    const onError = (error: MinorfaultError): void => {
      report({ event: "error", code: error.code, message: `guest ${entry.id}: ${error.message}` });
      this.emit("error", { guest: entry.id, error });
    };
    const guest = await Guest.start(this.#host, entry, adopt, onError);
    this.#guests.set(entry.id, guest);
    this.#crew.servesBy(guest.pager.threadId, guest.pager.placement.mode);
    guest.pager.ended.then((end) => this.#onPagerEnded(guest, end));
    guest.watch(this.#readiness, () => void guest.pager.close());
    return guest;
  }

  #onPagerEnded(guest: Guest, end: PagerEnd): void {
    if (this.#guests.get(guest.entry.id) !== guest) return;
    if (guest.leaving !== undefined) this.#onEnded(guest.entry, guest, guest.leaving);
    else if (end.reason === "failed") this.#onEnded(guest.entry, guest, "failed", end.error.message);
    else this.#onEnded(guest.entry, guest, "exited");
  }

  #onEnded(entry: Entry, guest: Guest | undefined, reason: EndReason, detail?: string): void {
    this.#guests.delete(entry.id);
    if (reason === "failed") giveUp(this.#config.folder, entry, detail ?? reason);
    this.#tally.end(reason);
    const { image } = JSON.parse(entry.text) as GuestNote;
    const why = detail === undefined ? {} : { detail };
    report({ event: "ended", id: entry.id, image, reason, ...why });
    if (guest !== undefined) this.emit("ended", { guest: guest.status, reason, ...why });
    this.#crew.drop(entry.id);
  }

  #find(id: string): Guest {
    const guest = this.#guests.get(id);
    if (guest === undefined) throw new MinorfaultError("ERR_NO_SUCH", `There is no guest ${id}`);
    return guest;
  }

  // ── images, configuration ──

  #imageStatus(name: string): ImageStatus {
    const { source } = this.#images.find(name);
    const guests = [...this.#guests.values()].filter(({ note }) => note.image === name).length;
    return { name, source, socket: this.#doors.pathOf(name), guests, ...this.#images.status(name) };
  }

  #configure(config: ServerConfig): void {
    this.#config = config;
    this.#crew.book(configEntry(config));
  }

  #complain(error: unknown): void {
    const { code, message } =
      error instanceof MinorfaultError ? error : { code: "ERR_BUG", message: String(error) };
    report({ event: "error", code, message });
  }
}
