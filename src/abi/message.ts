// struct uffd_msg: 32 packed bytes, an event and a union of 24 bytes at offset 8.
//
//   0     1 2   4       8            16           24           32
//  ┌─────┬─┬───┬───────┬────────────┬────────────┬────────────┐
//  │event│0│ 0 │   0   │ flags      │ address    │ ptid │  0  │ PAGEFAULT
//  │     │ │   │       │ ufd │  0   │     0      │     0      │ FORK
//  │     │ │   │       │ from       │ to         │ len        │ REMAP
//  │     │ │   │       │ start      │ end        │     0      │ REMOVE, UNMAP
//  └─────┴─┴───┴───────┴────────────┴────────────┴────────────┘

import { readUnsigned, writeWord } from "./structs.ts";
import { UFFD_EVENT } from "./userfaultfd.ts";

/** Bytes of one message; every read returns a multiple of it. */
export const UFFD_MSG_SIZE = 32;

/** A thread stands at a page that is missing, protected or not yet mapped. */
export interface PagefaultMessage {
  readonly event: "pagefault";
  /** UFFD_PAGEFAULT_FLAG bits. */
  readonly flags: number;
  /** Bytes; page-aligned unless the exact address was asked for. */
  readonly address: number;
  /** Thread id with the feature THREAD_ID, else 0. */
  readonly ptid: number;
}
/** The process forked; `ufd` is a userfaultfd on the child's memory, and ours to close. */
export interface ForkMessage {
  readonly event: "fork";
  readonly ufd: number;
}
/** Memory moved from `from` to `to`. */
export interface RemapMessage {
  readonly event: "remap";
  readonly from: number;
  readonly to: number;
  readonly len: number;
}
/** Contents of [start, end) are about to be dropped ("remove"), or its mapping is gone ("unmap"). */
export interface RemoveMessage {
  readonly event: "remove" | "unmap";
  readonly start: number;
  readonly end: number;
}
export type UffdMessage = PagefaultMessage | ForkMessage | RemapMessage | RemoveMessage;

/** Writes one message of 32 bytes at a byte offset; bytes that the event does not use become zero. */
export function encodeMessage(view: DataView, at: number, message: UffdMessage): void {
  for (let offset = 0; offset < UFFD_MSG_SIZE; offset += 4) view.setUint32(at + offset, 0, true);
  switch (message.event) {
    case "pagefault":
      view.setUint8(at, UFFD_EVENT.PAGEFAULT);
      view.setUint32(at + 8, message.flags, true);
      writeWord(view, at + 16, message.address);
      view.setUint32(at + 24, message.ptid, true);
      return;
    case "fork":
      view.setUint8(at, UFFD_EVENT.FORK);
      view.setUint32(at + 8, message.ufd, true);
      return;
    case "remap":
      view.setUint8(at, UFFD_EVENT.REMAP);
      writeWord(view, at + 8, message.from);
      writeWord(view, at + 16, message.to);
      writeWord(view, at + 24, message.len);
      return;
    case "remove":
    case "unmap":
      view.setUint8(at, message.event === "remove" ? UFFD_EVENT.REMOVE : UFFD_EVENT.UNMAP);
      writeWord(view, at + 8, message.start);
      writeWord(view, at + 16, message.end);
      return;
    default:
      message satisfies never;
  }
}

/** Reads one message; undefined when its event is one that this header does not know. */
export function decodeMessage(view: DataView, at = 0): UffdMessage | undefined {
  switch (view.getUint8(at)) {
    case UFFD_EVENT.PAGEFAULT:
      return {
        event: "pagefault",
        flags: view.getUint32(at + 8, true),
        address: readUnsigned(view, at + 16),
        ptid: view.getUint32(at + 24, true),
      };
    case UFFD_EVENT.FORK:
      return { event: "fork", ufd: view.getUint32(at + 8, true) };
    case UFFD_EVENT.REMAP:
      return {
        event: "remap",
        from: readUnsigned(view, at + 8),
        to: readUnsigned(view, at + 16),
        len: readUnsigned(view, at + 24),
      };
    case UFFD_EVENT.REMOVE:
      return { event: "remove", start: readUnsigned(view, at + 8), end: readUnsigned(view, at + 16) };
    case UFFD_EVENT.UNMAP:
      return { event: "unmap", start: readUnsigned(view, at + 8), end: readUnsigned(view, at + 16) };
    default:
      return undefined;
  }
}
