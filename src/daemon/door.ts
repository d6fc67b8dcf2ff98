// Connections on their way to become guests: what a peer has sent is looked at, and left in its socket until the guest is
// booked. So nothing of a hand-over is lost whoever dies meanwhile: the next one looks at the same bytes.
//
//   connection ──peek, peek──▶ complete, one descriptor ──▶ admit() ──▶ taken out of the socket, answered
//                    └── wrong, too long, too late, hung up ──▶ refused: the reason goes to the peer, and a counter

import { readlinkSync } from "node:fs";
import { PAGE_SIZE } from "../abi/memory.ts";
import { MinorfaultError } from "../base/errors.ts";
import {
  local,
  RECEIVE_BYTES_MAX,
  receive,
  send,
  setNonBlocking,
  setPeekOffset,
  shutDown,
} from "../linux/index.ts";
import { Ioctls } from "../uffd/index.ts";
import type { ServerLimits } from "./config.ts";
import { HandOverMessage, refused } from "./hand-over.ts";
import type { ConnectionNote } from "./keeper.ts";
import { closeAll } from "./ledger.ts";
import type { Entry } from "./link.ts";
import type { Readiness } from "./readiness.ts";
import { step } from "./step.ts";
import type { Door as DoorNote } from "./texts.ts";

/** LIMIT: descriptors that one hand-over may bring before it is refused for having more than one. */
const DESCRIPTORS_MAX = 1;
/** LIMIT: connections of one listener that wait for their message; the one that has waited longest makes room. */
const WAITING_MAX = 32;

/** A hand-over whose form is right: what it says has yet to be checked against its image. */
export interface HandedOver {
  readonly entry: Entry;
  readonly note: ConnectionNote;
  readonly door: DoorNote;
  readonly text: string;
  /** A userfaultfd after its handshake; the taker's to close. */
  readonly uffd: number;
  /** Bytes in the socket. */
  readonly byteLength: number;
  /** When it was complete, by performance.now(). */
  readonly since: number;
}

export interface DoorListener {
  readonly limits: ServerLimits;
  door(listener: string): DoorNote | undefined;
  /** Makes a guest of it, and answers what the peer is told. Throws to refuse. The uffd is its own, whatever happens. */
  admit(handedOver: HandedOver): Promise<object>;
  /** Another server, with the link to its keeper. */
  succeed(link: number, note: ConnectionNote): void;
  onRefused(entry: Entry, note: ConnectionNote, error: MinorfaultError): void;
  /** It wanted nothing. */
  onGone(entry: Entry): void;
}

interface Visit {
  readonly entry: Entry;
  readonly note: ConnectionNote;
  readonly door: DoorNote;
  readonly message: HandOverMessage;
  readonly descriptors: number[];
  readonly deadline: NodeJS.Timeout;
}

export class Door {
  readonly #readiness: Readiness;
  readonly #listener: DoorListener;
  /** By id, the one that has waited longest first. */
  readonly #visits = new Map<string, Visit>();
  /** All that are neither booked nor refused. */
  readonly #known = new Set<string>();

  constructor(readiness: Readiness, listener: DoorListener) {
    this.#readiness = readiness;
    this.#listener = listener;
  }

  /** Connections that have not said everything yet. */
  get waiting(): number {
    return this.#visits.size;
  }

  /** Looks after a connection, once. False: it has come in before. */
  enter(entry: Entry): boolean {
    if (this.#known.has(entry.id)) return false;
    this.#known.add(entry.id);
    this.#begin(entry);
    return true;
  }

  #begin(entry: Entry): void {
    const note = JSON.parse(entry.text) as ConnectionNote;
    const door = this.#listener.door(note.listener);
    if (door === undefined || door.door === "control") {
      this.#turnAway(entry, note, refused("Nobody is served at this socket any more"));
      return;
    }
    const { limits } = this.#listener;
    this.#makeRoom(note.listener, limits.connectionsMax);
    const visit: Visit = {
      entry,
      note,
      door,
      message: new HandOverMessage(limits.messageBytesMax),
      descriptors: [],
      deadline: setTimeout(() => this.#refuse(visit, tooLate(visit, limits.handOverMs)), limits.handOverMs),
    };
    this.#visits.set(entry.id, visit);
    const [socket] = entry.descriptors;
    // Whoever does not listen to the answer keeps nobody waiting.
    setNonBlocking(local, socket!, true);
    setPeekOffset(local, socket!, 0);
    this.#readiness.watch(socket!, () => this.#look(visit));
    // Mostly it has sent everything before it was taken in.
    this.#look(visit);
  }

  /** Whoever waits is turned away. */
  close(why: string): void {
    for (const visit of [...this.#visits.values()]) this.#refuse(visit, refused(why));
  }

  #makeRoom(listener: string, connectionsMax: number): void {
    for (;;) {
      const oldest = this.#superfluous(listener, connectionsMax);
      if (oldest === undefined) return;
      // The news that its message has come may still be on its way: a hundred guests may come at once.
      this.#look(oldest);
      if (this.#visits.get(oldest.entry.id) !== oldest) continue;
      this.#refuse(
        oldest,
        new MinorfaultError("ERR_LIMIT", "Others wait, and this connection has not said everything yet"),
      );
    }
  }

  /** The one that has waited longest where there is no room for another. */
  #superfluous(listener: string, connectionsMax: number): Visit | undefined {
    const waiting = [...this.#visits.values()];
    const here = waiting.filter(({ note }) => note.listener === listener);
    if (here.length >= WAITING_MAX) return here[0];
    return waiting.length >= connectionsMax ? waiting[0] : undefined;
  }

  #look(visit: Visit): void {
    // It may have gone between the news and now.
    if (this.#visits.get(visit.entry.id) !== visit) return;
    try {
      if (visit.door.door === "takeover") this.#lookForServer(visit);
      else this.#peek(visit);
    } catch (error) {
      this.#refuse(visit, error);
    }
  }

  #peek(visit: Visit): void {
    const { message, descriptors, entry } = visit;
    for (;;) {
      const received = receive(local, entry.descriptors[0]!, undefined, { peek: true, now: true });
      if (received === undefined) return;
      step("peeked");
      descriptors.push(...received.descriptors);
      if (descriptors.length > DESCRIPTORS_MAX) {
        throw refused(`${descriptors.length} descriptors came with the message, not one`);
      }
      if (received.bytes.byteLength === 0) throw hungUp(visit);
      message.push(received.bytes);
      // The descriptor may come with white space behind the message; Firecracker before 1.12 hangs up behind it.
      if (!message.isComplete || descriptors.length === 0) continue;
      this.#admit(visit);
      return;
    }
  }

  #admit(visit: Visit): void {
    const { entry, note, door, message } = visit;
    const since = performance.now();
    const [uffd] = visit.descriptors.splice(0);
    this.#forget(visit);
    const admit = async (): Promise<void> => {
      try {
        const text = takeText(message, uffd!);
        const { byteLength } = message;
        const answer = await this.#listener.admit({
          entry,
          note,
          door,
          text,
          uffd: uffd!,
          byteLength,
          since,
        });
        consume(entry.descriptors[0]!, byteLength);
        step("consumed");
        sendLine(entry.descriptors[0]!, answer);
        step("answered");
        this.#known.delete(entry.id);
      } catch (error) {
        this.#turnAway(entry, note, error);
      }
    };
    void admit();
  }

  /** One byte or more, and beside it the link to the keeper of a server that wants to take over. */
  #lookForServer(visit: Visit): void {
    const { entry, note } = visit;
    const received = receive(local, entry.descriptors[0]!, undefined, { now: true });
    if (received === undefined) return;
    if (received.bytes.byteLength === 0) {
      // Somebody only wanted to know whether anybody is here.
      this.#forget(visit);
      this.#known.delete(entry.id);
      this.#listener.onGone(entry);
      return;
    }
    visit.descriptors.push(...received.descriptors);
    const { uid } = note;
    if (uid !== 0 && uid !== process.getuid?.()) {
      throw new MinorfaultError("ERR_NOT_ALLOWED", `Another user, uid ${uid}, can't take this server over`);
    }
    if (visit.descriptors.length !== 1)
      throw refused("A server that wants to take over sends one descriptor");
    const [link] = visit.descriptors.splice(0);
    this.#forget(visit);
    this.#listener.succeed(link!, note);
  }

  #refuse(visit: Visit, error: unknown): void {
    this.#forget(visit);
    closeAll(visit.descriptors.splice(0));
    this.#turnAway(visit.entry, visit.note, error);
  }

  #forget(visit: Visit): void {
    clearTimeout(visit.deadline);
    this.#visits.delete(visit.entry.id);
    this.#readiness.unwatch(visit.entry.descriptors[0]!);
  }

  #turnAway(entry: Entry, note: ConnectionNote, cause: unknown): void {
    const error =
      cause instanceof MinorfaultError
        ? cause
        : new MinorfaultError(
            "ERR_BUG",
            `A hand-over failed: ${cause instanceof Error ? cause.stack : cause}`,
          );
    const { code, message, hint } = error;
    const [socket] = entry.descriptors;
    // What lies there unread would be a reset for the peer, not an end.
    consumeAll(socket!);
    sendLine(socket!, { error: { code, message, hint } });
    shutDown(local, socket!);
    this.#known.delete(entry.id);
    this.#listener.onRefused(entry, note, error);
  }
}

/** The message, when the descriptor beside it is right; else that is closed. */
function takeText(message: HandOverMessage, uffd: number): string {
  try {
    checkUserfaultfd(uffd);
    return message.text();
  } catch (error) {
    closeAll([uffd]);
    throw error;
  }
}

function checkUserfaultfd(fd: number): void {
  const link = readlinkSync(`/proc/self/fd/${fd}`);
  if (link !== "anon_inode:[userfaultfd]") throw refused(`The descriptor is not a userfaultfd but ${link}`);
  // Waking where nobody waits does nothing, and only a userfaultfd after its handshake can do it.
  const { errno } = new Ioctls(local, fd).wake(0, PAGE_SIZE);
  if (errno !== 0) throw refused("The userfaultfd has not had its handshake (UFFDIO_API)");
}

/** Takes the message out of the socket, and with it the reference to the userfaultfd that lies there. */
function consume(socket: number, byteLength: number): void {
  setPeekOffset(local, socket, -1);
  for (let left = byteLength; left > 0; ) {
    const received = receive(local, socket, left, { now: true });
    if (received === undefined || received.bytes.byteLength === 0) return;
    closeAll(received.descriptors);
    left -= received.bytes.byteLength;
  }
}

/** The same where nobody knows any more whether that has been done: nothing else is ever sent. */
export function consumeAll(socket: number): void {
  try {
    consume(socket, RECEIVE_BYTES_MAX);
  } catch {
    // It was reset: there is nothing left.
  }
}

/** Firecracker never reads it, our own guests do. */
export function sendLine(socket: number, line: object): void {
  try {
    send(local, socket, new TextEncoder().encode(`${JSON.stringify(line)}\n`));
  } catch {
    // It has hung up, which Firecracker before 1.12 does, or has not read for long.
  }
}

function hungUp({ message, descriptors }: Visit): MinorfaultError {
  const what = `${message.byteLength} bytes and ${descriptors.length} descriptors`;
  return refused(`The peer hung up after ${what}`);
}

function tooLate({ message, descriptors }: Visit, ms: number): MinorfaultError {
  const what = `${message.byteLength} bytes and ${descriptors.length} descriptors`;
  return refused(`Within ${ms} ms only ${what} came, which are no hand-over`);
}
