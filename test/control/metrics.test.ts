// What a server tells Prometheus, its log, diagnostics_channel, and the histories of its guests.

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { subscribe, unsubscribe } from "node:diagnostics_channel";
import { PassThrough } from "node:stream";
import { test } from "node:test";
import { MinorfaultError } from "../../src/base/errors.ts";
import { CHANNELS, publishEvents } from "../../src/daemon/control/channels.ts";
import { stripOf } from "../../src/daemon/control/frame.ts";
import { GuestHistory } from "../../src/daemon/control/guest-history.ts";
import { HEAT_CELLS, MAP_CELLS } from "../../src/daemon/control/history-schema.ts";
import { logEvents, openLog } from "../../src/daemon/control/log.ts";
import { parseControlOptions } from "../../src/daemon/control/options.ts";
import { countParts } from "../../src/daemon/control/page-counts.ts";
import { Recorder } from "../../src/daemon/control/recorder.ts";
import { FakeGuest, FakeTable } from "./fake-table.ts";
import { openScene } from "./scene.ts";

/** Samples of a text, by name and labels. */
function samples(text: string): Map<string, number> {
  return new Map(
    text
      .split("\n")
      .filter((line) => line !== "" && !line.startsWith("#"))
      .map((line): [string, number] => {
        const end = line.lastIndexOf(" ");
        return [line.slice(0, end), Number(line.slice(end + 1))];
      }),
  );
}

test("/metrics counts faults, bytes, latencies and guests by image, and goes on counting those that left", async (t) => {
  const { client, table } = await openScene(t);
  const one = table.arrive(new FakeGuest("g1", "web"));
  const two = table.arrive(new FakeGuest("g2", "web"));
  for (let fault = 0; fault < 10; fault++) one.fault(fault * 16, { us: 8 });
  two.fault(0, { us: 80 });
  two.waiting = 3;
  const before = samples(await client.metrics());
  const faults = 'minorfault_faults_total{image="web",kind="missing",outcome="copied"}';
  assert.equal(before.get(faults), 11);
  assert.equal(before.get('minorfault_installed_bytes_total{image="web",how="copied"}'), 11 * 65_536);
  assert.equal(before.get('minorfault_guests{image="web",state="serving"}'), 2);
  assert.equal(before.get('minorfault_guest_resident_bytes{image="web"}'), 11 * 65_536);
  assert.equal(before.get('minorfault_faults_waiting{image="web"}'), 3);
  const bytes = (where: string) =>
    before.get(`minorfault_faults_by_bytes_total{image="web",bytes="${where}"}`);
  assert.deepEqual(["at-hand", "fetched", "joined"].map(bytes), [1, 6, 4]);
  assert.equal(before.get('minorfault_ahead_units_total{image="web"}'), 8);
  assert.equal(before.get('minorfault_image_info{image="web",source="/srv/images/web",state="cold"}'), 1);
  const bucket = (le: string) =>
    before.get(`minorfault_fault_latency_seconds_bucket{image="web",le="${le}"}`);
  assert.deepEqual(["0.000005", "0.00001", "0.00005", "0.0001", "+Inf"].map(bucket), [0, 10, 10, 11, 11]);
  assert.equal(before.get('minorfault_fault_latency_seconds_count{image="web"}'), 11);
  assert.ok(Math.abs(before.get('minorfault_fault_latency_seconds_sum{image="web"}')! - 160e-6) < 1e-9);
  assert.equal(before.get('minorfault_refused_total{code="ERR_BAD_HAND_OVER"}'), 2);
  assert.equal(before.get("minorfault_takeovers_total"), 1);
  assert.equal(before.get("minorfault_ready"), 1);
  assert.equal(before.get('minorfault_limit{limit="guestsMax"}'), 1024);
  table.leave("g1", "exited");
  const after = samples(await client.metrics());
  assert.equal(after.get(faults), 11);
  assert.equal(after.get('minorfault_guests{image="web",state="serving"}'), 1);
  assert.equal(after.get('minorfault_control_requests_total{operation="/metrics",status="200"}'), 1);
});

test("promtool finds nothing wrong with the text", async (t) => {
  if (spawnSync("promtool", ["--version"]).error !== undefined) return t.skip("promtool is not here");
  const { client, table } = await openScene(t);
  table.arrive(new FakeGuest("g1", "web")).fault(0);
  const input = await client.metrics();
  const { status, stderr, stdout } = spawnSync("promtool", ["check", "metrics"], { input, encoding: "utf8" });
  // The process's own metrics are the client library's; what it says of ours is what counts.
  const ours = `${stdout}${stderr}`.split("\n").filter((line) => line.startsWith("minorfault_"));
  assert.deepEqual(ours, []);
  assert.ok(status === 0 || status === 3, stderr);
});

test("the log has a line of JSON for what happens, with its level, and no secrets", async () => {
  const table = new FakeTable();
  const stream = new PassThrough();
  const log = openLog("debug", stream);
  const stop = logEvents(table, log);
  const image = "https://user:secret@host/web?key=secret";
  table.tell("connected", { image, pid: 7, uid: 8 });
  table.tell("refused", { image, pid: 7, uid: 8, error: new MinorfaultError("ERR_LIMIT", "Too many") });
  table.arrive(new FakeGuest("g1", "web", { name: "vm-1" }));
  table.leave("g1", "dropped", "host is full");
  table.tell("takeover", { guests: 3, ms: 4.5, why: "the pager was killed" });
  stop();
  table.tell("spare", { pid: 9 });
  const text = (stream.read() as Buffer).toString();
  assert.ok(!text.includes("secret"), text);
  const lines = text
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line) as Record<string, unknown>);
  assert.deepEqual(
    lines.map(({ level, msg }) => [level, msg]),
    [
      ["debug", "connected"],
      ["warn", "refused"],
      ["info", "serving"],
      ["info", "ended"],
      ["info", "this pager serves"],
    ],
  );
  assert.deepEqual(lines[1]!.error, { code: "ERR_LIMIT", message: "Too many" });
  assert.deepEqual([lines[3]!.guest, lines[3]!.reason, lines[3]!.detail], ["g1", "dropped", "host is full"]);
});

test("events are published on diagnostics_channel under their documented names", () => {
  const table = new FakeTable();
  const stop = publishEvents(table);
  const seen: unknown[] = [];
  const listener = (message: unknown, name: string | symbol) =>
    seen.push([name, Object.keys(message as object)]);
  for (const name of Object.values(CHANNELS)) subscribe(name, listener);
  table.arrive(new FakeGuest("g1", "web"));
  table.leave("g1", "exited", "exit code 0");
  table.tell("keeper", { pid: 1, why: "killed" });
  for (const name of Object.values(CHANNELS)) unsubscribe(name, listener);
  stop();
  assert.deepEqual(seen, [
    ["minorfault:guest:serving", ["guest"]],
    ["minorfault:guest:ended", ["guest", "reason", "detail"]],
    ["minorfault:server:keeper", ["pid", "why"]],
  ]);
});

test("a history keeps every fault and every byte, however long it gets", () => {
  const guest = new FakeGuest("g1", "web", { pages: 8192, since: 1000 });
  const history = new GuestHistory(guest.status);
  let now = 1000;
  for (let round = 0; round < 5000; round++) {
    if (round % 3 !== 0) guest.fault((round * 16) % 8192, { us: 1 + (round % 100) });
    guest.waiting = round === 4000 ? 9 : 0;
    now += 10;
    history.look(guest.status, now);
  }
  const { columns, map, byteLength } = history.toJSON();
  assert.ok(columns.length <= 240 && columns.length >= 120, String(columns.length));
  const sum = (of: (column: (typeof columns)[number]) => number) =>
    columns.reduce((all, each) => all + of(each), 0);
  assert.equal(
    sum(({ faults }) => faults),
    guest.faults,
  );
  assert.equal(
    sum(({ bytesInstalled }) => bytesInstalled),
    guest.faults * 65_536,
  );
  assert.equal(sum(({ heat }) => heat.reduce((all, pages) => all + pages, 0)) * 4096, byteLength);
  assert.equal(Math.round(sum(({ ms }) => ms)), 50_000);
  assert.equal(Math.max(...columns.map(({ waiting }) => waiting)), 9);
  assert.ok(
    columns.every(
      ({ startMs }, index) => index === 0 || startMs === columns[index - 1]!.startMs + columns[index - 1]!.ms,
    ),
  );
  assert.ok(map.length === MAP_CELLS && map.every((share) => share === 1));
});

test("a history goes on over a takeover, although the new pager counts from nothing", () => {
  const guest = new FakeGuest("g1", "web", { pages: 1024, since: 0 });
  const history = new GuestHistory(guest.status);
  for (let fault = 0; fault < 5; fault++) guest.fault(fault * 16);
  history.look(guest.status, 10);
  guest.faults = 0;
  guest.latencyCounts.fill(0);
  guest.fault(160);
  guest.fault(176);
  history.look(guest.status, 20);
  assert.deepEqual(
    history.toJSON().columns.map(({ faults }) => faults),
    [5, 2],
  );
});

test("pages that a guest gives away do not count as heat, and what comes back does", () => {
  const guest = new FakeGuest("g1", "web", { pages: 1024, since: 0 });
  const history = new GuestHistory(guest.status);
  guest.fault(0, { count: 64 });
  history.look(guest.status, 10);
  guest.resident.fill(0);
  guest.fault(512, { count: 16 });
  history.look(guest.status, 20);
  const { columns } = history.toJSON();
  assert.deepEqual(
    columns.map(({ heat, residentBytes }) => [
      heat.length,
      heat.reduce((all, pages) => all + pages, 0),
      residentBytes,
    ]),
    [
      [HEAT_CELLS, 64, 64 * 4096],
      [HEAT_CELLS, 16, 16 * 4096],
    ],
  );
});

test("countParts() counts every page of every region once, whatever the sizes", () => {
  for (const [pages, huge, parts] of [
    [1, 0, 64],
    [63, 0, 64],
    [1000, 3, 64],
    [4097, 1, 1024],
    [3, 5, 7],
  ] as const) {
    const all = (count: number) => new Uint32Array(Math.ceil(count / 32)).fill(0xffff_ffff);
    const regions = [
      { start: 0, pageSize: 4096, pageCount: pages, resident: all(pages) },
      { start: 2 ** 32, pageSize: 2 ** 21, pageCount: huge, resident: all(huge) },
    ];
    const { totals, resident } = countParts(regions, parts);
    const bytes = pages * 4096 + huge * 2 ** 21;
    assert.equal(
      totals.reduce((sum, each) => sum + each, 0),
      bytes,
    );
    assert.deepEqual(resident, totals);
  }
});

test("a recorder looks often at the young and seldom at the old, and keeps those that have ended for a while", () => {
  const table = new FakeTable();
  let now = 0;
  const recorder = new Recorder(table, { now: () => now });
  const guest = table.arrive(new FakeGuest("g0", "web", { since: 0 }));
  const looks = () => {
    recorder.look();
    return recorder.peek("g0")!.toJSON().columns.length;
  };
  const grows = (everyMs: number) => {
    guest.fault(0);
    now += everyMs;
    const before = recorder.peek("g0")!.toJSON().columns.length;
    return looks() - before;
  };
  looks();
  assert.deepEqual([grows(20), grows(5)], [1, 0]);
  now = 10_000;
  looks();
  assert.deepEqual([grows(50), grows(50)], [0, 1]);
  now = 60_000;
  looks();
  assert.deepEqual([grows(300), grows(200)], [0, 1]);
  table.leave("g0", "exited", "exit code 3");
  assert.deepEqual(recorder.history("g0")!.toJSON().ended, {
    reason: "exited",
    detail: "exit code 3",
    atMs: now,
  });
  for (let index = 1; index <= 130; index++) {
    table.arrive(new FakeGuest(`g${index}`, "web", { since: now }));
    table.leave(`g${index}`, "exited");
  }
  assert.equal(recorder.history("g0"), undefined);
  assert.equal(recorder.endedIds.length, 128);
  assert.equal(recorder.endedIds[0], "g130");
  recorder.close();
});

test("a recorder that begins with guests of another pager says so", () => {
  const table = new FakeTable();
  const guest = new FakeGuest("g1", "web", { since: 0 });
  guest.pagers = 2;
  table.guests.set("g1", guest);
  const recorder = new Recorder(table, { now: () => 500 });
  const [happening] = recorder.history("g1")!.toJSON().happenings;
  assert.deepEqual([happening?.kind, happening?.atMs], ["takeover", 500]);
  recorder.close();
});

test("a strip says nothing and everything only of nothing and everything", () => {
  assert.equal(stripOf([0, 0]), "0".repeat(32));
  assert.equal(stripOf([1, 1]), "9".repeat(32));
  assert.equal(stripOf([0.001, 0.999]), "1".repeat(16) + "8".repeat(16));
});

test("options of the control API are checked, and the token is in no error", () => {
  for (const given of [
    { port: 1 },
    { port: -1, token: "x".repeat(20) },
    { port: 0, token: "short" },
    { colour: 1 },
  ]) {
    assert.throws(
      () => parseControlOptions(given),
      (error: MinorfaultError) => error.code === "ERR_BAD_ARGUMENT" && !error.message.includes("short"),
    );
  }
  assert.deepEqual(parseControlOptions(undefined), {});
});
