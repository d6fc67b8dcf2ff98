// Starts QEMU machines, and ends every one of them.
//
// A machine that waits for a saved state has its monitor and console at once, and listens on `incoming` when told to.

import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import type { LinuxGuest } from "../guest/linux-guest.ts";
import { acceptOne } from "./accepted.ts";
import { GuestConsole } from "./console.ts";
import { commandLine, type MachineSpec } from "./machine-spec.ts";
import { Monitor } from "./monitor.ts";

export const QEMU = "qemu-system-x86_64";

export interface StartOptions {
  /** Where its sockets are; the name makes them its own. */
  readonly folder: string;
  readonly name: string;
  readonly spec: MachineSpec;
  readonly guest: LinuxGuest | undefined;
  /** Waits for a state; with "post-copy" it is prepared to start before that is whole. */
  readonly incoming?: "plain" | "post-copy";
  readonly options?: readonly string[];
}

const running = new Set<ChildProcess>();
process.on("exit", () => {
  for (const child of running) child.kill("SIGKILL");
});

export class QemuMachine {
  readonly process: ChildProcess;
  readonly monitor: Monitor;
  readonly console: GuestConsole;
  /** A second monitor, for whoever is tested. */
  readonly qmpPath: string;
  /** Where it listens for a state. */
  readonly incomingPath: string;
  readonly #errors: string[];
  readonly #ended: Promise<unknown>;

  private constructor(
    child: ChildProcess,
    monitor: Monitor,
    guestConsole: GuestConsole,
    paths: { qmp: string; incoming: string },
    errors: string[],
    ended: Promise<unknown>,
  ) {
    this.process = child;
    this.monitor = monitor;
    this.console = guestConsole;
    this.qmpPath = paths.qmp;
    this.incomingPath = paths.incoming;
    this.#errors = errors;
    this.#ended = ended;
  }

  static async start({
    folder,
    name,
    spec,
    guest,
    incoming,
    options = [],
  }: StartOptions): Promise<QemuMachine> {
    const path = (what: string): string => join(folder, `${name}.${what}`);
    const [monitor, serial] = [await acceptOne(path("monitor")), await acceptOne(path("serial"))];
    const line = [
      ...commandLine(spec, guest),
      ...["-qmp", `unix:${monitor.path}`],
      ...["-qmp", `unix:${path("qmp")},server=on,wait=off`],
      ...["-chardev", `socket,id=serial,path=${serial.path}`, "-serial", "chardev:serial"],
      ...(incoming === undefined ? [] : ["-incoming", "defer"]),
      ...options,
    ];
    const child = spawn(QEMU, line, { stdio: ["ignore", "ignore", "pipe"] });
    running.add(child);
    const errors: string[] = [];
    child.stderr?.setEncoding("utf8").on("data", (text: string) => errors.push(text));
    const ended = once(child, "exit").finally(() => running.delete(child));
    const died = ended.then(() => {
      for (const listener of [monitor, serial]) listener.close();
      throw new Error(`QEMU did not start: ${errors.join("")}`);
    });
    const called = Promise.all([monitor.socket.then((socket) => Monitor.open(socket)), serial.socket]);
    called.catch(() => {});
    const [opened, serialSocket] = await Promise.race([called, died]);
    died.catch(() => {});
    const capabilities = incoming === "post-copy" ? ["events", "postcopy-ram"] : ["events"];
    await opened.command("migrate-set-capabilities", {
      capabilities: capabilities.map((capability) => ({ capability, state: true })),
    });
    const machine = new QemuMachine(
      child,
      opened,
      new GuestConsole(serialSocket),
      { qmp: path("qmp"), incoming: path("incoming") },
      errors,
      ended,
    );
    if (incoming === "post-copy") await machine.listen();
    return machine;
  }

  /** Listens for a state on its own socket, or takes it from elsewhere. */
  async listen(uri = `unix:${this.incomingPath}`): Promise<void> {
    await this.monitor.command("migrate-incoming", { uri });
  }

  /** Runs what was loaded. Before that its console forgets what it is told. */
  async runs(): Promise<void> {
    await this.monitor.event(({ event }) => event === "RESUME", "the machine to run");
  }

  /** What QEMU has printed. */
  get errors(): string {
    return this.#errors.join("");
  }

  /** For whoever tells of a failure: how it has ended, if it has, and what it has printed. */
  get ending(): string {
    const { exitCode, signalCode } = this.process;
    return `; QEMU (${signalCode ?? exitCode ?? "running"}): ${this.errors}`;
  }

  /** Ends on its own, as a refused state makes it. */
  async ended(deadlineMs = 30_000): Promise<number | null> {
    const timer = setTimeout(() => this.process.kill("SIGKILL"), deadlineMs);
    await this.#ended;
    clearTimeout(timer);
    return this.process.exitCode;
  }

  async stop(): Promise<void> {
    this.process.kill("SIGKILL");
    this.monitor.close();
    this.console.close();
    await this.#ended;
  }
}
