// QMP: QEMU's control socket. One JSON object a line: a greeting, then commands, their answers, and events in between.
//
//   ◀ {"QMP": {"version": …}}     ▶ {"execute": "qmp_capabilities", "id": 1}     ◀ {"return": {}, "id": 1}
//   ◀ {"event": "STOP", …}
//
// Every command has a deadline, every line a limit: a QEMU that hangs is an error, not a wait.

import { connect, type Socket } from "node:net";
import * as v from "valibot";
import { MinorfaultError } from "../../base/errors.ts";

/** LIMIT: bytes of one line; the longest known answer has about 1 MiB. */
const LINE_BYTES_MAX = 16 * 2 ** 20;
const DEADLINE_MS = 10_000;
const NEWLINE = 10;

const versionSchema = v.looseObject({
  qemu: v.looseObject({ major: v.number(), minor: v.number(), micro: v.number() }),
  package: v.string(),
});
const lineSchema = v.looseObject({
  QMP: v.optional(v.looseObject({ version: versionSchema, capabilities: v.optional(v.array(v.string())) })),
  id: v.optional(v.number()),
  return: v.optional(v.unknown()),
  error: v.optional(v.looseObject({ class: v.string(), desc: v.string() })),
  event: v.optional(v.string()),
  data: v.optional(v.unknown()),
});
type Line = v.InferOutput<typeof lineSchema>;

export interface QmpOptions {
  /** LIMIT: how long one answer may take; default 10 s. */
  readonly deadlineMs?: number;
  readonly signal?: AbortSignal | undefined;
}

export interface QmpEvent {
  readonly name: string;
  readonly data: unknown;
}

interface Pending {
  readonly command: string;
  readonly resolve: (value: unknown) => void;
  readonly reject: (error: Error) => void;
  readonly timer: NodeJS.Timeout;
}

export class QmpClient {
  /** Where it is connected to. */
  readonly path: string;
  readonly #socket: Socket;
  readonly #deadlineMs: number;
  readonly #pending = new Map<number, Pending>();
  readonly #listeners = new Set<(event: QmpEvent) => void>();
  readonly #greeting: Promise<Line>;
  #greet: (line: Line) => void = () => {};
  #pieces: Buffer[] = [];
  #pendingBytes = 0;
  #nextId = 1;
  #version = "";
  #greetingFields: unknown;
  #hasOutOfBand = false;
  #failure: MinorfaultError | undefined;

  private constructor(path: string, socket: Socket, deadlineMs: number) {
    this.path = path;
    this.#socket = socket;
    this.#deadlineMs = deadlineMs;
    this.#greeting = new Promise((resolve) => {
      this.#greet = resolve;
    });
    socket.on("data", (piece: Buffer) => this.#receive(piece));
    socket.on("error", (cause: NodeJS.ErrnoException) => {
      if (cause.syscall !== "connect") return this.#fail(`QMP of ${path} failed: ${cause.message}`, cause);
      this.#failure ??= new MinorfaultError("ERR_QEMU", `No QEMU listens at ${path} (${cause.code})`, {
        cause,
        hint: "QEMU has its control socket where -qmp unix:PATH,server=on,wait=off says",
      });
    });
    socket.on("close", () => this.#fail(`QEMU closed its QMP socket ${path}`));
  }

  /** Connects to a unix socket and agrees on capabilities. */
  static async connect(
    path: string,
    { deadlineMs = DEADLINE_MS, signal }: QmpOptions = {},
  ): Promise<QmpClient> {
    signal?.throwIfAborted();
    const client = new QmpClient(path, connect(path), deadlineMs);
    try {
      await client.#begin();
      return client;
    } catch (error) {
      client.close();
      throw error;
    }
  }

  /** "7.2.22 (Debian …)". */
  get version(): string {
    return this.#version;
  }

  /** What QEMU said first, for whoever speaks in its name. */
  get greeting(): unknown {
    return this.#greetingFields;
  }

  /** Runs a command; its answer, or ERR_QEMU with QEMU's own words. */
  execute(command: string, args?: Readonly<Record<string, unknown>>): Promise<unknown> {
    return this.#run("execute", command, args);
  }

  /** Runs one of the few commands that QEMU obeys even while its main thread is stuck (at a missing page, say). */
  executeOutOfBand(command: string, args?: Readonly<Record<string, unknown>>): Promise<unknown> {
    return this.#run(this.#hasOutOfBand ? "exec-oob" : "execute", command, args);
  }

  #run(
    how: "execute" | "exec-oob",
    command: string,
    args?: Readonly<Record<string, unknown>>,
  ): Promise<unknown> {
    return new Promise((resolve, reject) => {
      if (this.#failure !== undefined) throw this.#failure;
      const id = this.#nextId++;
      const timer = setTimeout(() => {
        this.#pending.delete(id);
        reject(
          new MinorfaultError("ERR_DEADLINE", `QEMU did not answer ${command} within ${this.#deadlineMs} ms`),
        );
      }, this.#deadlineMs);
      this.#pending.set(id, { command, resolve, reject, timer });
      this.#socket.write(`${JSON.stringify({ [how]: command, ...(args && { arguments: args }), id })}\n`);
    });
  }

  /** Tells of events until the function that it gives is called. */
  onEvent(listener: (event: QmpEvent) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** The socket, for a process that goes on with it; this client is closed, and closes it without a word to QEMU. */
  handOver(give: (socket: Socket) => void): void {
    this.#socket.pause();
    give(this.#socket);
    this.close();
  }

  close(): void {
    this.#fail(`The QMP connection to ${this.path} has been closed`, undefined, "ERR_CLOSED");
    this.#socket.destroy();
  }

  async #begin(): Promise<void> {
    let timer: NodeJS.Timeout | undefined;
    const failed = new Promise<never>((_, reject) => {
      const late = `${this.path} sent no greeting of QMP within ${this.#deadlineMs} ms; another client may have it`;
      timer = setTimeout(() => reject(new MinorfaultError("ERR_DEADLINE", late)), this.#deadlineMs);
      this.#socket.once("close", () => reject(this.#failure));
    });
    failed.catch(() => {});
    const greeting = await Promise.race([this.#greeting, failed]).finally(() => clearTimeout(timer));
    this.#greetingFields = greeting.QMP;
    this.#version = versionText(greeting.QMP!.version);
    this.#hasOutOfBand = greeting.QMP!.capabilities?.includes("oob") ?? false;
    await this.execute("qmp_capabilities", this.#hasOutOfBand ? { enable: ["oob"] } : undefined);
  }

  #receive(piece: Buffer): void {
    let rest = piece;
    for (let end = rest.indexOf(NEWLINE); end !== -1; end = rest.indexOf(NEWLINE)) {
      const line = Buffer.concat([...this.#pieces, rest.subarray(0, end)])
        .toString("utf8")
        .trim();
      this.#pieces = [];
      this.#pendingBytes = 0;
      rest = rest.subarray(end + 1);
      if (line !== "") this.#line(line);
    }
    if (rest.byteLength === 0) return;
    this.#pieces.push(rest);
    this.#pendingBytes += rest.byteLength;
    if (this.#pendingBytes > LINE_BYTES_MAX)
      this.#refuse(`it sends a line of more than ${LINE_BYTES_MAX} bytes`);
  }

  #line(text: string): void {
    let line: Line | undefined;
    try {
      line = v.parse(lineSchema, JSON.parse(text));
    } catch {
      // Told below, as any other line that is none of QMP.
    }
    if (line === undefined) this.#refuse(`it sends ${JSON.stringify(text.slice(0, 100))}`);
    else if (line.QMP !== undefined) this.#greet(line);
    else if (line.event !== undefined) this.#tell({ name: line.event, data: line.data });
    else this.#answer(line);
  }

  #answer({ id, error, return: value }: Line): void {
    const pending = id === undefined ? undefined : this.#pending.get(id);
    // The answer to a command whose deadline has passed.
    if (pending === undefined || id === undefined) return;
    this.#pending.delete(id);
    clearTimeout(pending.timer);
    if (error === undefined) pending.resolve(value);
    else pending.reject(new MinorfaultError("ERR_QEMU", `QEMU refused ${pending.command}: ${error.desc}`));
  }

  #tell(event: QmpEvent): void {
    for (const listener of [...this.#listeners]) listener(event);
  }

  #refuse(reason: string): void {
    this.#fail(`${this.path} does not speak QMP: ${reason}`, undefined, "ERR_BAD_MESSAGE");
    this.#socket.destroy();
  }

  #fail(
    reason: string,
    cause?: unknown,
    code: "ERR_QEMU" | "ERR_CLOSED" | "ERR_BAD_MESSAGE" = "ERR_QEMU",
  ): void {
    this.#failure ??= new MinorfaultError(code, reason, { cause });
    for (const { reject, timer } of this.#pending.values()) {
      clearTimeout(timer);
      reject(this.#failure);
    }
    this.#pending.clear();
  }
}

function versionText({ qemu, package: name }: v.InferOutput<typeof versionSchema>): string {
  const numbers = `${qemu.major}.${qemu.minor}.${qemu.micro}`;
  return name === "" ? numbers : `${numbers} (${name.trim()})`;
}
