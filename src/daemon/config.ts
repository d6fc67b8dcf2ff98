// What a page server is told: which images it serves, to whom, and how much of everything it takes.

import { MinorfaultError } from "../base/errors.ts";
import type { PagerSource, PlacementChoice, PlanOptions } from "../pager/index.ts";
import type { PolicyFile } from "./policy-file.ts";

export interface ImageConfig {
  /** Letters, digits, dot, dash and underscore, at most 64: it names the socket, `<folder>/images/<name>.sock`. */
  readonly name: string;
  readonly source: PagerSource;
  readonly plan?: PlanOptions;
  /** Opened, with its working set read, verified and kept, before the first guest comes. Default true. */
  readonly warm?: boolean;
}

/** LIMIT: what the server takes from outside. Each can be changed while it runs. */
export interface ServerLimits {
  /** Guests at once. */
  readonly guestsMax: number;
  /** Connections that have not handed over yet. */
  readonly connectionsMax: number;
  /** Bytes of a hand-over. */
  readonly messageBytesMax: number;
  readonly regionsMax: number;
  /** Bytes of all regions of a guest. */
  readonly guestBytesMax: number;
  /** How long a hand-over may take, from the connection to its last byte. */
  readonly handOverMs: number;
}

export const DEFAULT_LIMITS: ServerLimits = {
  guestsMax: 1024,
  connectionsMax: 128,
  messageBytesMax: 64 * 1024,
  regionsMax: 128,
  guestBytesMax: 2 ** 42,
  handOverMs: 5000,
};

export interface ServerConfig {
  /** The folder of the sockets, mode 0700. */
  readonly folder: string;
  readonly images: readonly ImageConfig[];
  /** Who may use which image. Default: who runs the server, and root, may use all. */
  readonly policy?: PolicyFile;
  readonly limits?: Partial<ServerLimits>;
  readonly placement?: PlacementChoice;
  /** What the control API is told; the server passes it on as it is. */
  readonly control?: Readonly<Record<string, unknown>>;
}

export function limitsOf({ limits }: ServerConfig): ServerLimits {
  return { ...DEFAULT_LIMITS, ...limits };
}

/** The configuration with other limits. @throws ERR_BAD_ARGUMENT */
export function withLimits(config: ServerConfig, limits: Partial<ServerLimits>): ServerConfig {
  for (const [name, value] of Object.entries(limits)) {
    if (!(name in DEFAULT_LIMITS)) {
      throw new MinorfaultError("ERR_BAD_ARGUMENT", `There is no limit ${name}`);
    }
    if (Number.isSafeInteger(value) && value >= 0) continue;
    throw new MinorfaultError("ERR_BAD_ARGUMENT", `${name} is a whole number, not ${value}`);
  }
  return { ...config, limits: { ...config.limits, ...limits } };
}
