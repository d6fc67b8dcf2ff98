// The sockets that guests come to, as the process that serves knows them: which there are, whom each is for, and until when
// those for one announced guest are open.

import { MinorfaultError } from "../base/errors.ts";
import type { Crew } from "./crew.ts";
import type { ExpectedGuest } from "./guests.ts";
import { closeListener, type Listener, openDoors } from "./sockets.ts";
import type { Door } from "./texts.ts";

export class Doors {
  readonly #crew: Crew;
  readonly #doors = new Map<string, Door>();
  readonly #timers = new Map<string, NodeJS.Timeout>();

  constructor(crew: Crew) {
    this.#crew = crew;
  }

  /** Those that the ledger has: after a takeover. */
  openAll(): void {
    for (const { id, door } of openDoors(this.#crew.ledger)) this.#open(id, door);
  }

  /** One more, which outlives this process. */
  add({ entry, door }: Listener): void {
    this.#crew.book(entry);
    this.#open(entry.id, door);
  }

  get(id: string): Door | undefined {
    return this.#doors.get(id);
  }

  get tickets(): readonly ExpectedGuest[] {
    return [...this.#doors.values()].flatMap((door) => (door.door === "ticket" ? [door.ticket] : []));
  }

  /** Where guests of an image come to; "" when there is no such place. */
  pathOf(image: string): string {
    const door = [...this.#doors.values()].find((each) => each.door === "image" && each.image === image);
    return door?.door === "image" ? door.path : "";
  }

  /** Nobody comes in there any more. */
  shut(id: string): void {
    const door = this.#doors.get(id);
    this.#doors.delete(id);
    clearTimeout(this.#timers.get(id));
    this.#timers.delete(id);
    if (door !== undefined) closeListener(door);
    this.#crew.drop(id);
  }

  shutImage(image: string): void {
    for (const [id, door] of this.#doors) if (door.door === "image" && door.image === image) this.shut(id);
  }

  shutAll(): void {
    for (const id of [...this.#doors.keys()]) this.shut(id);
  }

  #open(id: string, door: Door): void {
    this.#doors.set(id, door);
    if (door.door !== "ticket") return;
    const left = Math.max(0, door.ticket.until - Date.now());
    this.#timers.set(id, setTimeout(() => this.shut(id), left).unref());
  }
}

/** The name of the image that is to be had there, "" where there is none. */
export function imageOf(door: Door | undefined): string {
  if (door?.door === "image") return door.image;
  return door?.door === "ticket" ? door.ticket.image : "";
}

/**
 * Whether a peer is the one for whom a door was made.
 *
 * @throws ERR_NOT_ALLOWED
 */
export function checkExpected(door: Door, pid: number, uid: number): void {
  if (door.door !== "ticket") return;
  const { ticket } = door;
  const isOther = (wanted: number | undefined, is: number) => wanted !== undefined && wanted !== is;
  if (!isOther(ticket.pid, pid) && !isOther(ticket.uid, uid)) return;
  throw new MinorfaultError(
    "ERR_NOT_ALLOWED",
    `Another guest is expected here than process ${pid} of ${uid}`,
  );
}
