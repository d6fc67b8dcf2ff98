// Starts a page server, or one that takes another's place, and follows what becomes of it. The server is processes of their
// own (keeper, pager, spare): it does not end when whoever started it does.

import { Socket } from "node:net";
import { resolve } from "node:path";
import { createInterface } from "node:readline";
import { SIGNAL } from "../abi/memory.ts";
import { MinorfaultError } from "../base/errors.ts";
import { connect, local, send, setNonBlocking, signal, socketPair } from "../linux/index.ts";
import { makeBaton } from "./baton.ts";
import { spawnProcess } from "./birth.ts";
import type { ServerConfig } from "./config.ts";
import type { FrontEvent } from "./front-pipe.ts";
import { closeAll, Ledger } from "./ledger.ts";
import { linkPair } from "./link.ts";
import {
  checkName,
  controlListener,
  imageListener,
  isServed,
  prepareFolder,
  takeoverListener,
  takeoverPath,
} from "./sockets.ts";
import { makeTally } from "./tally.ts";
import { BATON_ID, COUNTERS_ID, configEntry } from "./texts.ts";

/** How long a server may take until it serves. */
const START_MS = 30_000;

export interface ServerEnd {
  /** 0: every guest has all it needs, or another server has taken over. */
  readonly code: number;
  readonly why: string;
}

export type ServerListener = (event: FrontEvent & { readonly at: string }) => void;

export interface RunningServer {
  readonly folder: string;
  /** The process that serves now; it changes with takeovers. */
  readonly pid: number;
  /** Resolves when the server serves. @throws ERR_BUSY, and whatever keeps it from that */
  readonly ready: Promise<void>;
  /** Resolves when all of its processes are gone. */
  readonly ended: Promise<ServerEnd>;
  /** Drains all guests, and ends. */
  stop(): void;
  /** Lets this process end; the server goes on. */
  detach(): void;
}

export interface StartOptions {
  readonly onEvent?: ServerListener;
  /** Sockets that listen already, by name: `control`, or that of an image. They become the server's. */
  readonly sockets?: ReadonlyMap<string, number>;
}

/** @throws ERR_BAD_ARGUMENT, ERR_BUSY when a server runs there already */
export function startServer(config: ServerConfig, options: StartOptions = {}): RunningServer {
  const folder = resolve(config.folder);
  for (const { name } of config.images) checkName(name);
  prepareFolder(folder);
  if (isServed(folder)) {
    throw new MinorfaultError("ERR_BUSY", `A server runs in ${folder} already`, {
      hint: "`minorfault serve --takeover` takes its place without a guest noticing; or choose another --folder",
    });
  }
  const ledger = new Ledger();
  const { sockets = new Map<string, number>() } = options;
  ledger.put(configEntry({ ...config, folder }));
  ledger.put({ id: BATON_ID, type: "kept", text: "", descriptors: [makeBaton()] });
  ledger.put({ id: COUNTERS_ID, type: "kept", text: "", descriptors: [makeTally()] });
  ledger.put(takeoverListener(folder).entry);
  ledger.put(controlListener(folder, sockets.get("control")).entry);
  for (const { name } of config.images) ledger.put(imageListener(folder, name, sockets.get(name)).entry);
  const [ours, theirs] = linkPair();
  const server = new Started(folder, theirs, options.onEvent);
  ledger.sync(ours, 0);
  closeAll([ours]);
  for (const id of ledger.marks) ledger.drop(id.slice(0, id.lastIndexOf("/")));
  return server;
}

/** Takes the place of a server that runs, with its guests, its sockets and its configuration. */
export function takeOver(folder: string, options: Pick<StartOptions, "onEvent"> = {}): RunningServer {
  const path = takeoverPath(resolve(folder));
  let socket: number;
  try {
    socket = connect(local, path);
  } catch (cause) {
    throw new MinorfaultError("ERR_NO_SERVER", `No server to take over answers at ${path}`, { cause });
  }
  const [ours, theirs] = linkPair();
  const server = new Started(resolve(folder), ours, options.onEvent);
  send(local, socket, new TextEncoder().encode("takeover\n"), [theirs]);
  closeAll([theirs, socket]);
  return server;
}

class Started implements RunningServer {
  readonly folder: string;
  readonly ready: Promise<void>;
  readonly ended: Promise<ServerEnd>;
  readonly #pipe: Socket;
  #pid = 0;
  #isStopping = false;
  #end: ServerEnd | undefined;

  /** `link`: a keeper's end of the link to whoever founds it. */
  constructor(folder: string, link: number, onEvent: ServerListener | undefined) {
    this.folder = folder;
    const [reading, writing] = socketPair(local);
    // Whoever has something to say does not wait for a listener that sleeps.
    setNonBlocking(local, writing, true);
    spawnProcess("keeper", folder, link, { frontPipe: writing });
    closeAll([link, writing]);
    this.#pipe = new Socket({ fd: reading, readable: true, writable: false });
    let lastError = "";
    let serve: () => void;
    const serving = new Promise<void>((resolve) => {
      serve = resolve;
    });
    const lines = createInterface({ input: this.#pipe, crlfDelay: Number.POSITIVE_INFINITY });
    lines.on("line", (line) => {
      const event = JSON.parse(line) as FrontEvent & { readonly at: string };
      if (event.event === "error") lastError = event.message;
      if (event.event === "serving") {
        this.#pid = event.pid;
        serve();
        if (this.#isStopping) signal(this.#pid, SIGNAL.SIGTERM);
      }
      if (event.event === "stopped") this.#end = { code: event.code, why: event.why };
      onEvent?.(event);
    });
    this.ended = new Promise((resolve) => {
      this.#pipe.on("error", () => undefined);
      lines.on("close", () =>
        resolve(this.#end ?? { code: 1, why: lastError || "all its processes are gone" }),
      );
    });
    const failed = this.ended.then(({ why }) => {
      throw new MinorfaultError("ERR_CLOSED", `The server ended before it served: ${why}`);
    });
    failed.catch(() => undefined);
    const late = new Promise<never>((_, reject) => {
      setTimeout(() => {
        // What it said last is known only now.
        const message = `The server did not serve within ${START_MS / 1000} s${lastError && `: ${lastError}`}`;
        reject(new MinorfaultError("ERR_DEADLINE", message));
      }, START_MS).unref();
    });
    this.ready = Promise.race([serving, failed, late]);
    this.ready.catch(() => undefined);
  }

  get pid(): number {
    return this.#pid;
  }

  stop(): void {
    this.#isStopping = true;
    if (this.#pid !== 0) signal(this.#pid, SIGNAL.SIGTERM);
  }

  detach(): void {
    this.#pipe.unref();
  }
}
