// One guest that is served: its entry in the ledger, and the pager that has it now.

import { POLL } from "../abi/memory.ts";
import type { MinorfaultError } from "../base/errors.ts";
import { check, local, poll } from "../linux/index.ts";
import { type Pager, type PagerHost, type PagerOptions, pagerStateBytes } from "../pager/index.ts";
import { Ioctls } from "../uffd/index.ts";
import { endGuest, poisonGuest } from "./endings.ts";
import type { GuestRegion, GuestState, GuestStatus } from "./guests.ts";
import type { Entry } from "./link.ts";
import type { Readiness } from "./readiness.ts";
import { GUEST_FD, type GuestNote } from "./texts.ts";

/** LIMIT: descriptors that are polled in one go, which have to fit in the scratch memory. */
const POLLED_MAX = 4096;
/** Behind the pager's state in its file: how many pagers the guest has had. */
const PAGERS_BYTES = 8;

/** Bytes of the file that outlives a guest's pagers. */
export function stateBytes(regions: readonly GuestRegion[]): number {
  return pagerStateBytes(regions) + PAGERS_BYTES;
}

export class Guest {
  readonly entry: Entry;
  readonly note: GuestNote;
  readonly pager: Pager;
  readonly #pagers: number;
  state: GuestState = "serving";
  /** Why it is being let go, when it was us who decided that. */
  leaving: "installed" | "dropped" | undefined;

  private constructor(entry: Entry, note: GuestNote, pager: Pager) {
    this.entry = entry;
    this.note = note;
    this.pager = pager;
    this.#pagers = countPager(entry.descriptors[GUEST_FD.STATE]!, pagerStateBytes(note.regions));
  }

  /** Serves it. `adopt`: another pager did before. */
  static async start(
    host: PagerHost,
    entry: Entry,
    adopt: boolean,
    onError: (error: MinorfaultError) => void,
  ): Promise<Guest> {
    const note = JSON.parse(entry.text) as GuestNote;
    const { source, content, plan } = note;
    const { replay } = note.ticket ?? {};
    const options: PagerOptions = {
      descriptor: entry.descriptors[GUEST_FD.UFFD]!,
      stateDescriptor: entry.descriptors[GUEST_FD.STATE]!,
      regions: note.regions,
      source: replay === undefined ? source : { ...source, replay },
      ...(content === undefined ? {} : { content }),
      guest: { pid: note.pid },
      onError,
      ...(plan === undefined ? {} : { plan }),
      ...(adopt ? { adopt } : {}),
    };
    return new Guest(entry, note, await host.start(options));
  }

  get status(): GuestStatus {
    const { note, pager, state, entry } = this;
    const { name, image, pid, uid, gid, regions, since, handOverMs } = note;
    return {
      id: entry.id,
      ...(name === undefined ? {} : { name }),
      image,
      state,
      pid,
      uid,
      gid,
      regions,
      byteLength: regions.reduce((sum, { byteLength }) => sum + byteLength, 0),
      since,
      handOverMs,
      pagers: this.#pagers,
      statistics: pager.statistics(),
      residency: () => pager.residency(),
    };
  }

  /** Calls the listener when it has ended: its process, or for our own guests its connection. */
  watch(readiness: Readiness, onEnd: () => void): void {
    const { descriptors } = this.entry;
    const [socket, pidfd] = [descriptors[GUEST_FD.SOCKET]!, descriptors[GUEST_FD.PIDFD]!];
    const has = (fd: number, events: number): boolean => poll(local, [{ fd, events }], 0)[0] !== 0;
    readiness.watch(pidfd, () => has(pidfd, POLL.IN) && onEnd());
    if (!this.note.endsWithConnection) return;
    readiness.watch(socket, () => has(socket, POLL.RDHUP) && onEnd());
  }

  /** Its memory is not paged any more: what is missing, it has given away, and finds zeros there. */
  release(): void {
    const ioctls = new Ioctls(local, this.entry.descriptors[GUEST_FD.UFFD]!);
    for (const { start, byteLength } of this.note.regions) ioctls.unregister(start, byteLength);
  }
}

/** Those who wait at a page now, and those who do not. */
export function byNeed(entries: readonly Entry[]): { waiting: readonly Entry[]; others: readonly Entry[] } {
  const uffds = entries.map(({ descriptors }) => ({ fd: descriptors[GUEST_FD.UFFD]! }));
  const ready: number[] = [];
  for (let from = 0; from < uffds.length; from += POLLED_MAX) {
    ready.push(...poll(local, uffds.slice(from, from + POLLED_MAX), 0));
  }
  return {
    waiting: entries.filter((_, index) => ready[index] !== 0),
    others: entries.filter((_, index) => ready[index] === 0),
  };
}

/** One more; answers how many it has had. */
function countPager(state: number, at: number): number {
  const { address, view } = local.scratch;
  check(local.call("pread64", state, address, PAGERS_BYTES, at), "pread64");
  const count = view.getUint32(0, true) + 1;
  view.setUint32(0, count, true);
  check(local.call("pwrite64", state, address, PAGERS_BYTES, at), "pwrite64");
  return count;
}

/** Ends a guest that can't be served: kills it, or poisons what it has not got where it keeps its own userfaultfd. */
export function giveUp(folder: string, entry: Entry, reason: string): void {
  const { endsWithConnection, regions } = JSON.parse(entry.text) as GuestNote;
  if (endsWithConnection !== true) {
    endGuest(folder, entry, reason);
    return;
  }
  const ranges = regions.map(({ start, byteLength }) => ({ start, until: start + byteLength }));
  poisonGuest(folder, entry, ranges, reason);
}
