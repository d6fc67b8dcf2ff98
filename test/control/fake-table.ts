// A table of guests without guests: what the control API stands on, told by the test what it has.

import { EventEmitter } from "node:events";
import { setBits, wordsFor } from "../../src/base/bitmap.ts";
import { MinorfaultError } from "../../src/base/errors.ts";
import { BUCKETS, bucketOf } from "../../src/base/histogram.ts";
import { DEFAULT_LIMITS, type ImageConfig, type ServerLimits } from "../../src/daemon/config.ts";
import type {
  EndReason,
  ExpectedGuest,
  GuestEventName,
  GuestEvents,
  GuestStatus,
  GuestTable,
  ImageStatus,
  Ticket,
} from "../../src/daemon/guests.ts";
import type { PolicyFile } from "../../src/daemon/policy-file.ts";

const PAGE = 4096;

export class FakeGuest {
  readonly id: string;
  readonly image: string;
  readonly name: string | undefined;
  readonly since: number;
  readonly pages: number;
  readonly resident: Uint32Array;
  readonly latencyCounts: Float64Array = new Float64Array(BUCKETS);
  latencySumUs = 0;
  faults = 0;
  zeroed = 0;
  poisoned = 0;
  waiting = 0;
  pagers = 1;
  state: GuestStatus["state"] = "serving";

  constructor(
    id: string,
    image: string,
    { pages = 1024, name = undefined as string | undefined, since = Date.now() } = {},
  ) {
    this.id = id;
    this.image = image;
    this.name = name;
    this.pages = pages;
    this.since = since;
    this.resident = new Uint32Array(wordsFor(pages));
  }

  /** A fault at a page that brought `count` pages, and took so long. */
  fault(page: number, { count = 16, us = 10 } = {}): void {
    setBits(this.resident, page, Math.min(this.pages, page + count));
    this.faults++;
    this.latencyCounts[bucketOf(us * 1000)]! += 1;
    this.latencySumUs += us;
  }

  get status(): GuestStatus {
    const { id, image, name, since, pages, resident, faults, zeroed, poisoned, waiting, pagers, state } =
      this;
    return {
      id,
      ...(name === undefined ? {} : { name }),
      image,
      state,
      pid: 4000 + Number(id.replace(/\D/g, "")),
      uid: 1000,
      gid: 1000,
      regions: [{ start: 0x7f00_0000_0000, byteLength: pages * PAGE, imageOffset: 0, pageSize: PAGE }],
      byteLength: pages * PAGE,
      since,
      handOverMs: 1.5,
      pagers,
      statistics: {
        faults,
        outcomes: { copied: faults - zeroed - poisoned, zeroed, continued: 0, poisoned, woken: 0 },
        bytesInstalled: faults * 16 * PAGE,
        bytesZeroed: zeroed * 16 * PAGE,
        bytesEvicted: 0,
        bytesSwapped: 0,
        bytesReplayed: 0,
        events: 0,
        retries: 0,
        waiting,
        away: { read: 0, fetched: 3, joined: 2, ahead: 4, aheadMet: 1 },
        latencyUs: { p50: 10, p99: 20, max: 30 },
        latencyCounts: this.latencyCounts.slice(),
        latencySumUs: this.latencySumUs,
      },
      residency: () => [{ start: 0x7f00_0000_0000, pageSize: PAGE, pageCount: pages, resident }],
    };
  }
}

export class FakeTable extends EventEmitter implements GuestTable {
  readonly guests = new Map<string, FakeGuest>();
  readonly tickets = new Map<string, ExpectedGuest>();
  readonly served = new Map<string, ImageStatus>();
  limits: ServerLimits = DEFAULT_LIMITS;
  readonly calls: string[] = [];
  isReady = true;
  /** Resolves when drains may end. */
  drained: Promise<void> = Promise.resolve();
  #lastTicket = 0;

  constructor() {
    super();
    this.setMaxListeners(50);
    void this.addImage({ name: "web", source: { url: "/srv/images/web" } });
  }

  list(): readonly GuestStatus[] {
    return [...this.guests.values()].map((guest) => guest.status);
  }

  get(id: string): GuestStatus | undefined {
    return this.guests.get(id)?.status;
  }

  images(): readonly ImageStatus[] {
    return [...this.served.values()];
  }

  expected(): readonly ExpectedGuest[] {
    return [...this.tickets.values()];
  }

  readonly counters = {
    connections: 5,
    handOvers: 3,
    refused: { ERR_BAD_HAND_OVER: 2 },
    ended: { exited: 1 },
    takeovers: 1,
    keepers: 0,
  };

  get health() {
    return {
      ready: this.isReady,
      ...(this.isReady ? {} : { why: "it is ending" }),
      pid: 100,
      keeperPid: 101,
      sparePid: 102,
      since: 1_700_000_000_000,
      serverSince: 1_690_000_000_000,
    };
  }

  setLimits(limits: Partial<ServerLimits>): ServerLimits {
    this.limits = { ...this.limits, ...limits };
    return this.limits;
  }

  async expect(ticket: Ticket): Promise<ExpectedGuest> {
    if (!this.served.has(ticket.image)) throw new MinorfaultError("ERR_NO_SUCH", `No image ${ticket.image}`);
    if (this.tickets.size >= this.limits.guestsMax) throw new MinorfaultError("ERR_LIMIT", "guestsMax");
    const id = `expected-${++this.#lastTicket}`;
    const socket = ticket.path ?? `/run/minorfault/guests/${id}.sock`;
    const expected = { ...ticket, id, socket, until: Date.now() + (ticket.withinMs ?? 60_000) };
    this.tickets.set(id, expected);
    return expected;
  }

  async forget(id: string): Promise<void> {
    this.tickets.delete(id);
  }

  async addImage({ name, source }: ImageConfig): Promise<ImageStatus> {
    if (this.served.has(name)) throw new MinorfaultError("ERR_BUSY", `There is an image ${name} already`);
    const socket = `/run/minorfault/images/${name}.sock`;
    const status: ImageStatus = { name, source, socket, state: "cold", guests: 0 };
    this.served.set(name, status);
    return status;
  }

  async removeImage(name: string): Promise<void> {
    if (!this.served.delete(name)) throw new MinorfaultError("ERR_NO_SUCH", `There is no image ${name}`);
  }

  setPolicy({ rules }: PolicyFile): void {
    this.calls.push(`policy of ${rules.length} rules`);
  }

  async warm(name: string): Promise<ImageStatus> {
    const found = this.served.get(name);
    if (found === undefined) throw new MinorfaultError("ERR_NO_SUCH", `There is no image ${name}`);
    const warm: ImageStatus = { ...found, state: "warm", byteLength: 2 ** 30, workingSets: ["boot"] };
    this.served.set(name, warm);
    return warm;
  }

  async drain(id: string, { signal }: { readonly signal?: AbortSignal } = {}): Promise<void> {
    this.calls.push(`drain ${id}`);
    await Promise.race([
      this.drained,
      new Promise((_, reject) => signal?.addEventListener("abort", () => reject(signal.reason as Error))),
    ]).catch((error: unknown) => {
      this.calls.push(`drain ${id} aborted`);
      throw error;
    });
    this.leave(id, "installed");
  }

  async drop(id: string, reason: string): Promise<void> {
    this.calls.push(`drop ${id}: ${reason}`);
    this.leave(id, "dropped", reason);
  }

  async shutdown(): Promise<void> {
    this.calls.push("shutdown");
  }

  arrive(guest: FakeGuest): FakeGuest {
    this.guests.set(guest.id, guest);
    this.tell("serving", { guest: guest.status });
    return guest;
  }

  leave(id: string, reason: EndReason, detail?: string): void {
    const guest = this.guests.get(id);
    if (guest === undefined) return;
    this.guests.delete(id);
    this.tell("ended", { guest: guest.status, reason, ...(detail === undefined ? {} : { detail }) });
  }

  tell<Name extends GuestEventName>(name: Name, event: GuestEvents[Name]): void {
    this.emit(name, event);
  }
}
