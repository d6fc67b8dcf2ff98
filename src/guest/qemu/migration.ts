// What QEMU says of its migration, and the few things that are asked of it, over QMP.

import { setTimeout as delay } from "node:timers/promises";
import * as v from "valibot";
import { MinorfaultError } from "../../base/errors.ts";
import { checked } from "../../base/schema.ts";
import type { QmpClient } from "./qmp.ts";

/** Ends of a migration. */
const ENDED: ReadonlySet<string> = new Set(["none", "completed", "failed", "cancelled"]);

/** Capabilities that make a stream which we cannot read, or that wants answers. */
const REFUSED: ReadonlySet<string> = new Set([
  "block",
  "compress",
  "dirty-bitmaps",
  "mapped-ram",
  "multifd",
  "pause-before-switchover",
  "postcopy-preempt",
  "rdma-pin-all",
  "return-path",
  "switchover-ack",
  "x-colo",
  "x-ignore-shared",
  "xbzrle",
  "zero-copy-send",
]);

/** LIMIT: how long a migration that was cancelled may take to end. */
const CANCEL_MS = 30_000;
const POLL_MS = 10;

const statusSchema = v.looseObject({ status: v.string(), running: v.boolean() });
const capabilitiesSchema = v.array(v.looseObject({ capability: v.string(), state: v.boolean() }));
const migrationSchema = v.looseObject({
  status: v.optional(v.string(), "none"),
  "error-desc": v.optional(v.string()),
  downtime: v.optional(v.number()),
  "total-time": v.optional(v.number()),
  ram: v.optional(v.looseObject({ transferred: v.number(), remaining: v.number(), total: v.number() })),
});

export type MigrationStatus = v.InferOutput<typeof migrationSchema>;

export async function isRunning(qmp: QmpClient): Promise<boolean> {
  return (await queryStatus(qmp)).running;
}

async function queryStatus(qmp: QmpClient): Promise<v.InferOutput<typeof statusSchema>> {
  return answer("query-status", statusSchema, await qmp.execute("query-status"));
}

export async function queryMigration(qmp: QmpClient): Promise<MigrationStatus> {
  return answer("query-migrate", migrationSchema, await qmp.execute("query-migrate"));
}

/** Capabilities that are on. */
export async function queryCapabilities(qmp: QmpClient): Promise<ReadonlySet<string>> {
  const all = await qmp.execute("query-migrate-capabilities");
  const parsed = answer("query-migrate-capabilities", capabilitiesSchema, all);
  return new Set(parsed.filter(({ state }) => state).map(({ capability }) => capability));
}

export async function setCapability(qmp: QmpClient, capability: string, state: boolean): Promise<void> {
  await qmp.execute("migrate-set-capabilities", { capabilities: [{ capability, state }] });
}

/** Sets how many bytes a second a migration may send; answers what it was before. */
export async function setBandwidth(qmp: QmpClient, bytesPerSecond: number): Promise<number> {
  const parameters = v.looseObject({ "max-bandwidth": v.number() });
  const before = await qmp.execute("query-migrate-parameters");
  await qmp.execute("migrate-set-parameters", { "max-bandwidth": bytesPerSecond });
  return answer("query-migrate-parameters", parameters, before)["max-bandwidth"];
}

/** Refuses a machine that is being or has been migrated, or whose stream could not be read. */
export async function checkMigratable(qmp: QmpClient): Promise<void> {
  if ((await queryStatus(qmp)).status === "postmigrate") {
    throw new MinorfaultError("ERR_BUSY", "The machine stands since its last migration or capture", {
      hint: "It has not changed since; let it run (cont), and stop it again if it shall stand",
    });
  }
  const { status } = await queryMigration(qmp);
  if (!ENDED.has(status)) {
    throw new MinorfaultError("ERR_BUSY", `The machine is being migrated already (${status})`, {
      hint: "Wait for its end, or cancel it with migrate_cancel",
    });
  }
  const refused = [...(await queryCapabilities(qmp))].filter((name) => REFUSED.has(name));
  if (refused.length === 0) return;
  throw new MinorfaultError(
    "ERR_STREAM_FEATURE",
    `The machine's migration capability ${refused.join(", ")} is on, which is not supported`,
    { hint: "Switch it off with migrate-set-capabilities, capture, and switch it on again" },
  );
}

/** Waits until a migration has ended well; ERR_QEMU with QEMU's words if it has not. */
export async function migrationCompleted(qmp: QmpClient, signal?: AbortSignal): Promise<MigrationStatus> {
  for (;;) {
    const migration = await queryMigration(qmp);
    const { status } = migration;
    if (status === "completed") return migration;
    if (ENDED.has(status)) throw migrationFailed(migration);
    await delay(POLL_MS, undefined, signal && { signal });
  }
}

/** Cancels whatever goes on, and waits until nothing does. */
export async function cancelMigration(qmp: QmpClient): Promise<void> {
  const until = performance.now() + CANCEL_MS;
  for (let isTold = false; ; isTold = true) {
    const { status } = await queryMigration(qmp);
    if (ENDED.has(status)) return;
    if (performance.now() > until) {
      throw new MinorfaultError(
        "ERR_DEADLINE",
        `QEMU did not end its migration within ${CANCEL_MS} ms (${status})`,
      );
    }
    if (!isTold) await qmp.execute("migrate_cancel");
    await delay(POLL_MS);
  }
}

export function migrationFailed(
  { status, "error-desc": reason }: MigrationStatus,
  cause?: unknown,
): MinorfaultError {
  const words = reason === undefined ? "it gives no reason" : reason;
  return new MinorfaultError("ERR_QEMU", `The migration ended as ${status}: ${words}`, { cause });
}

/** Page sizes of the host by block, as the monitor prints them; empty where it does not. */
export async function queryPageSizes(qmp: QmpClient): Promise<Map<string, number>> {
  const sizes = new Map<string, number>();
  let text: unknown;
  try {
    text = await qmp.execute("human-monitor-command", { "command-line": "info ramblock" });
  } catch {
    // No monitor: the stream may say it, and whoever restores knows his own.
    return sizes;
  }
  const units: Readonly<Record<string, number>> = { B: 1, KiB: 2 ** 10, MiB: 2 ** 20, GiB: 2 ** 30 };
  for (const line of String(text).split(/\r?\n/)) {
    const [, name, count, unit] = /^\s*(\S+)\s+(\d+) ([KMG]?i?B)\s+0x/.exec(line) ?? [];
    if (name !== undefined && unit !== undefined)
      sizes.set(name, Number(count) * (units[unit] ?? Number.NaN));
  }
  return sizes;
}

function answer<T extends v.GenericSchema>(command: string, schema: T, value: unknown): v.InferOutput<T> {
  return checked(
    schema,
    value,
    (flaw) => new MinorfaultError("ERR_BAD_MESSAGE", `QEMU's answer to ${command} is wrong at ${flaw}`),
  );
}
