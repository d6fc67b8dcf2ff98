// The table of guests, as whoever operates the server sees it: the control API, the metrics and the page stand on this
// and on nothing else of the daemon.
//
//   expect() ─▶ expected ──hand-over──▶ serving ──drain()──▶ draining ──▶ installed │
//   (or just a connection to the image's socket)     └──drop(), guest exits ──▶ ended │ gone from the list, told as "ended"
//
// Everything here is plain data besides `residency()`, whose words live.

import type { MinorfaultError } from "../base/errors.ts";
import type { PagerStatistics, Residency, SourceDescriptor } from "../pager/index.ts";
import type { ImageConfig, ServerLimits } from "./config.ts";
import type { PolicyFile } from "./policy-file.ts";

export type GuestState = "serving" | "draining";

/** How a guest left. Only after `installed` it lives on without us. */
export type EndReason = "exited" | "installed" | "dropped" | "killed" | "failed" | "handed-on";

export interface GuestRegion {
  /** Address in the guest's process. */
  readonly start: number;
  readonly byteLength: number;
  readonly imageOffset: number;
  readonly pageSize: number;
}

export interface GuestStatus {
  readonly id: string;
  readonly name?: string;
  /** Name of the image; its URL where it was announced by that. */
  readonly image: string;
  readonly state: GuestState;
  /** The process that handed over, as the kernel knows it. */
  readonly pid: number;
  readonly uid: number;
  readonly gid: number;
  readonly regions: readonly GuestRegion[];
  readonly byteLength: number;
  /** Milliseconds since the epoch: when it was handed over. */
  readonly since: number;
  /** Milliseconds from the hand-over's last byte until the pager served. */
  readonly handOverMs: number;
  /** Pagers that have served this guest so far. 1: the first one. */
  readonly pagers: number;
  /** Since the present pager has it; a takeover begins anew. */
  readonly statistics: PagerStatistics;
  residency(): readonly Residency[];
}

export interface ImageStatus {
  readonly name: string;
  readonly source: SourceDescriptor;
  /** Where guests of this image connect. */
  readonly socket: string;
  readonly state: "cold" | "warming" | "warm" | "failed";
  readonly byteLength?: number;
  readonly workingSets?: readonly string[];
  /** Why it could not be opened. */
  readonly error?: string;
  readonly guests: number;
}

/** A guest that is announced before it connects: it gets a socket of its own, which serves it and nobody else. */
export interface Ticket {
  /** The name of an image that is served, or the URL of another one that the policy allows. */
  readonly image: string;
  readonly name?: string;
  /** Only this process may use it. */
  readonly pid?: number;
  /** Only this user may use it: its uid. The socket is given to it. */
  readonly uid?: number;
  readonly gid?: number;
  /** Where its socket is to be, such as in the guest's jail. Default: in the server's folder. */
  readonly path?: string;
  /** The working set that is replayed: its name, false for none. Default: as the image is configured. */
  readonly replay?: boolean | string;
  /** Until when it has to have come, default 60 s from now. */
  readonly withinMs?: number;
}

export interface ExpectedGuest extends Ticket {
  readonly id: string;
  /** Where it has to connect: what goes into `backend_path` of Firecracker's `PUT /snapshot/load`. */
  readonly socket: string;
  /** Milliseconds since the epoch. */
  readonly until: number;
}

/** Counters since the server began; they outlive takeovers. */
export interface ServerCounters {
  readonly connections: number;
  readonly handOvers: number;
  /** By the code of the error that the peer was told. */
  readonly refused: Readonly<Record<string, number>>;
  readonly ended: Readonly<Partial<Record<EndReason, number>>>;
  /** Pagers that took over from one that had ended. */
  readonly takeovers: number;
  /** Keepers that were started after the first one. */
  readonly keepers: number;
}

export interface ServerHealth {
  /** Serving, and not about to end. */
  readonly ready: boolean;
  /** In words, when it is not. */
  readonly why?: string;
  readonly pid: number;
  readonly keeperPid: number;
  /** The process that would take over now; undefined while there is none. */
  readonly sparePid?: number;
  /** Milliseconds since the epoch: when this pager took over, and when the server began. */
  readonly since: number;
  readonly serverSince: number;
}

/** What happens, as it happens. */
export interface GuestEvents {
  connected: { readonly image: string; readonly pid: number; readonly uid: number };
  serving: { readonly guest: GuestStatus };
  refused: {
    readonly image: string;
    readonly pid: number;
    readonly uid: number;
    readonly error: MinorfaultError;
  };
  /** A page could not be served; the guest goes on. */
  error: { readonly guest: string; readonly error: MinorfaultError };
  ended: { readonly guest: GuestStatus; readonly reason: EndReason; readonly detail?: string };
  takeover: { readonly guests: number; readonly ms: number; readonly why: string };
  keeper: { readonly pid: number; readonly why: string };
  spare: { readonly pid: number };
}

export type GuestEventName = keyof GuestEvents;
export type GuestListener<Name extends GuestEventName> = (event: GuestEvents[Name]) => void;

export interface GuestTable {
  list(): readonly GuestStatus[];
  get(id: string): GuestStatus | undefined;
  images(): readonly ImageStatus[];
  expected(): readonly ExpectedGuest[];
  readonly counters: ServerCounters;
  readonly health: ServerHealth;
  readonly limits: ServerLimits;
  /** Holds for what comes; whoever is there stays. @throws ERR_BAD_ARGUMENT, ERR_OUT_OF_RANGE */
  setLimits(limits: Partial<ServerLimits>): ServerLimits;
  /** Announces a guest. @throws ERR_NO_SUCH (image), ERR_LIMIT */
  expect(ticket: Ticket): Promise<ExpectedGuest>;
  /** Takes an announcement back. */
  forget(id: string): Promise<void>;
  /** One more image, with its socket. @throws ERR_BAD_ARGUMENT, ERR_BUSY when the name is taken */
  addImage(config: ImageConfig): Promise<ImageStatus>;
  /** Its socket goes; guests that have it are served on. */
  removeImage(name: string): Promise<void>;
  /** Holds for what comes; whoever is there stays. */
  setPolicy(policy: PolicyFile): void;
  /** Opens an image ahead of its guests. */
  warm(image: string): Promise<ImageStatus>;
  /** Installs everything, then lets the guest go: it needs no pager any more. */
  drain(id: string, options?: { readonly signal?: AbortSignal }): Promise<void>;
  /** Ends the guest (SIGKILL): without its pages it can't live. The reason is recorded. */
  drop(id: string, reason: string): Promise<void>;
  /** Takes no more guests, drains all, and ends the server. */
  shutdown(options?: { readonly withinMs?: number }): Promise<void>;
  on<Name extends GuestEventName>(name: Name, listener: GuestListener<Name>): void;
  off<Name extends GuestEventName>(name: Name, listener: GuestListener<Name>): void;
}
