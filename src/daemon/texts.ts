// What the server's entries say, as whoever serves writes it and reads it after a takeover. Entries carry short texts;
// the configuration may be long, and travels as a file in memory.

import { MinorfaultError } from "../base/errors.ts";
import { local, mapMemory, memfd } from "../linux/index.ts";
import type { PagerSource, PlanOptions } from "../pager/index.ts";
import type { ServerConfig } from "./config.ts";
import type { ExpectedGuest, GuestRegion } from "./guests.ts";
import type { Entry } from "./link.ts";

/** LIMIT: bytes of a configuration as JSON. */
const CONFIG_BYTES_MAX = 4 * 2 ** 20;

/** Whom a listener is for. */
export type Door =
  | { readonly door: "image"; readonly image: string; readonly path: string }
  | { readonly door: "ticket"; readonly ticket: ExpectedGuest }
  /** Another server that wants to take over. */
  | { readonly door: "takeover"; readonly path: string }
  /** Only kept: the control API accepts there itself. */
  | { readonly door: "control"; readonly path: string };

export interface GuestNote {
  readonly name?: string;
  /** What its image was called when it came. */
  readonly image: string;
  /** What it is served from, whatever that name may stand for by now; and its content, if that can be told. */
  readonly source: PagerSource;
  readonly content?: string;
  readonly plan?: PlanOptions;
  readonly ticket?: ExpectedGuest;
  readonly pid: number;
  readonly uid: number;
  readonly gid: number;
  readonly regions: readonly GuestRegion[];
  readonly since: number;
  readonly handOverMs: number;
  /** It ends when its connection does. */
  readonly endsWithConnection?: boolean;
}

/** Of a guest's entry, by place. */
export const GUEST_FD = { UFFD: 0, STATE: 1, SOCKET: 2, PIDFD: 3 } as const;

export const CONFIG_ID = "config";
export const BATON_ID = "baton";
export const COUNTERS_ID = "counters";
export const CONTROL_ID = "control";

export function configEntry(config: ServerConfig): Entry {
  const bytes = new TextEncoder().encode(JSON.stringify(config));
  if (bytes.byteLength > CONFIG_BYTES_MAX) {
    throw new MinorfaultError("ERR_LIMIT", `The configuration has more than ${CONFIG_BYTES_MAX} bytes`);
  }
  const fd = memfd(local, "minorfault-config", bytes.byteLength);
  const memory = mapMemory(bytes.byteLength, { fd });
  memory.bytes.set(bytes);
  memory.close();
  return { id: CONFIG_ID, type: "kept", text: String(bytes.byteLength), descriptors: [fd] };
}

export function configOf({ text, descriptors }: Entry): ServerConfig {
  const memory = mapMemory(Number(text), { fd: descriptors[0]! });
  try {
    return JSON.parse(new TextDecoder().decode(memory.bytes.slice(0, Number(text)))) as ServerConfig;
  } finally {
    memory.close();
  }
}
