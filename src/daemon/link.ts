// What the processes of a page server say to each other: one JSON text a message, descriptors beside it, over sockets that
// keep the bounds of messages. What was sent stays in the socket when its sender dies.
//
//            ┌──────────────── keeper ────────────────┐
//        link│ put, drop, synced, peer         link   │  each link carries the same messages;
//            ▼ ready, serving, put, drop, accept      ▼  whoever does not expect one leaves it
//          pager ◀────── put, drop, keeper, retire ── spare
//                                (the lifeline)

import { ERRNO } from "../abi/errno.ts";
import { MinorfaultError } from "../base/errors.ts";
import { local, receive, send, socketPair } from "../linux/index.ts";

/** What is kept: `listener` the keeper accepts from, `reserve` is its link to a process; all else it only holds. */
export type EntryType = "listener" | "connection" | "guest" | "kept" | "reserve";

/** One thing that outlives every process of the server: a text that only its user reads, and descriptors. */
export interface Entry {
  readonly id: string;
  readonly type: EntryType;
  readonly text: string;
  readonly descriptors: readonly number[];
}

export type LinkMessage =
  /** An entry, in the place of one of the same id. Its descriptors are beside it. */
  | { readonly kind: "put"; readonly id: string; readonly type: EntryType; readonly text: string }
  | { readonly kind: "drop"; readonly id: string }
  /** All entries have been put; which keeper it is that has them. */
  | { readonly kind: "synced"; readonly generation: number }
  /** Beside it: the lifeline to the other process of this server that can serve, which has these entries. */
  | { readonly kind: "peer"; readonly marks: readonly string[] }
  /** Beside it: the link to a new keeper. Of connections that nobody has understood yet, who serves knows these. */
  | { readonly kind: "keeper"; readonly generation: number; readonly connections: readonly string[] }
  /** It could serve, and does now what else it can do ahead. */
  | { readonly kind: "able" }
  /** Warm: it has done that. */
  | { readonly kind: "ready"; readonly pid: number }
  /** It serves, and knows these entries. */
  | { readonly kind: "serving"; readonly pid: number; readonly marks: readonly string[] }
  /** What the keeper has, for whoever has just begun to serve: the keeper may be as new. */
  | { readonly kind: "known"; readonly pid: number; readonly marks: readonly string[] }
  /** Whether the keeper takes connections from its listeners; the id of the next one is at least `next`. */
  | { readonly kind: "accept"; readonly on: boolean; readonly next: number }
  /** End: others have everything. */
  | { readonly kind: "retire" };

export interface Arrived {
  readonly message: LinkMessage;
  readonly descriptors: readonly number[];
}

/** LIMIT: bytes of a message. Longer texts travel in a file in memory. */
const MESSAGE_BYTES_MAX = 60_000;

export function linkPair(): [number, number] {
  return socketPair(local, "messages");
}

/** Waits while the other side is slow. False when nobody is there any more. */
export function tell(link: number, message: LinkMessage, descriptors: readonly number[] = []): boolean {
  const bytes = new TextEncoder().encode(JSON.stringify(message));
  if (bytes.byteLength > MESSAGE_BYTES_MAX) {
    throw new MinorfaultError(
      "ERR_LIMIT",
      `A message between the server's processes has ${bytes.byteLength} bytes`,
    );
  }
  try {
    send(local, link, bytes, descriptors);
    return true;
  } catch (error) {
    if (error instanceof MinorfaultError && error.code === "ERR_SYSCALL") return false;
    throw error;
  }
}

export function tellEntry(link: number, { id, type, text, descriptors }: Entry): boolean {
  return tell(link, { kind: "put", id, type, text }, descriptors);
}

/** The next message; "nothing" when none has come yet, "end" when the other side is gone. */
export function hear(link: number): Arrived | "nothing" | "end" {
  let received: ReturnType<typeof receive>;
  try {
    received = receive(local, link, undefined, { now: true });
  } catch (error) {
    if (!(error instanceof MinorfaultError) || error.code !== "ERR_SYSCALL") throw error;
    // It died with messages of ours unread. The kernel says so once, and before what it had sent, which comes now.
    return error.errno === ERRNO.ECONNRESET ? hear(link) : "end";
  }
  if (received === undefined) return "nothing";
  const { bytes, descriptors } = received;
  if (bytes.byteLength === 0) return "end";
  // From ourselves: its form is known.
  return { message: JSON.parse(new TextDecoder().decode(bytes)) as LinkMessage, descriptors };
}
