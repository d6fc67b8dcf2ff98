// How the demo's result looks: 80 columns, no colours or characters that the terminal can't show, an honest verdict.

import assert from "node:assert/strict";
import { test } from "node:test";
import { reportOf } from "../../src/cli/demo/report.ts";
import { drawMap, residencyShares } from "../../src/cli/demo/residency-map.ts";
import type { RestoreResult } from "../../src/cli/demo/restore.ts";
import type { DemoResult } from "../../src/cli/demo/run.ts";
import { formatMs, renderResult } from "../../src/cli/demo/screen.ts";
import type { Style } from "../../src/cli/demo/style.ts";

const PAGES = 4096;
const PLAIN: Style = { width: 80, unicode: true, manyColours: false, paint: (_, text) => text };

function restored(name: RestoreResult["name"], changes: Partial<RestoreResult> = {}): RestoreResult {
  const residentAfterSample = new Uint8Array(PAGES);
  residentAfterSample.fill(1, 0, name === "eager" ? PAGES : PAGES / 4);
  return {
    name,
    faultAroundPages: name === "fault-around" ? 16 : 1,
    firstByteMs: name === "eager" ? 100 : 0.2,
    sampleMs: name === "eager" ? 101 : 50,
    allMs: name === "eager" ? 150 : 1500,
    faults: name === "eager" ? 0 : PAGES,
    faultsUntilSample: 82,
    bytesMoved: 12 * 2 ** 20,
    bytesMovedUntilSample: 2 ** 20,
    bytesZeroed: 4 * 2 ** 20,
    faultUs: name === "eager" ? undefined : { count: PAGES, p50: 7.1, p99: 12.34, max: 1234 },
    residentUs: { count: 10, p50: 0.05, p99: 0.1, max: 1 },
    faultsToldBy: "residency",
    residentAfterSample,
    wrongPages: 0,
    guestReadRight: true,
    placement: undefined,
    ...changes,
  };
}

function result(restores: readonly RestoreResult[], right = true): DemoResult {
  return {
    options: { byteLength: PAGES * 4096, seed: 5, guest: "auto", faultAroundPages: 16 },
    machine: { cpu: "A processor", cpus: 2, memoryBytes: 8 * 2 ** 30, system: "Linux 6.18", node: "v20" },
    guest: {
      kind: "process",
      guestText: "a process",
      pagerText: "a worker",
      refusals: [{ kind: "kvm", reason: "no" }],
    },
    image: {
      byteLength: PAGES * 4096,
      pageCount: PAGES,
      files: ["/usr/bin/node", "/lib/libc.so.6"],
      composition: { files: 2000, zero: 1500, repeated: 596 },
      distinctPages: 1900,
      hashes: Buffer.alloc(0),
      zeroPages: new Uint32Array(0),
      firstWords: new Uint32Array(0),
    },
    imageMs: 12,
    samplePages: 82,
    restores,
    right,
    totalMs: 4200,
  };
}

const all = () => [restored("eager"), restored("page-by-page"), restored("fault-around")];

test("a result fits 80 columns, has no escape codes without colours, and says why the guest is not a better one", () => {
  const text = renderResult(result(all()), PLAIN);
  for (const line of text.split("\n")) {
    // Paths and processor names may be as long as they like.
    assert.ok(line.length <= 80, line);
  }
  assert.ok(!text.includes("\x1b"));
  assert.match(text, /not a KVM machine: no/);
});

test("the time to the first byte is compared with the eager restore", () => {
  const text = renderResult(result(all()), PLAIN);
  assert.match(text, /first byte read +100 ms +200 µs +200 µs\n +500× sooner +500× sooner\n/);
  assert.match(text, /everything touched +150 ms +1\.50 s +1\.50 s\n +10× later +10× later\n/);
});

test("without UTF-8 everything is ASCII", () => {
  const text = renderResult(result(all()), { ...PLAIN, unicode: false });
  // biome-ignore lint/suspicious/noControlCharactersInRegex: it is what the test is about
  assert.doesNotMatch(text, /[^\x00-\x7f]/);
  assert.match(text, /200 us/);
});

test("wrong pages are never called right", () => {
  const wrong = [restored("eager"), restored("page-by-page", { wrongPages: 3 }), restored("fault-around")];
  const text = renderResult(result(wrong, false), PLAIN);
  assert.match(text, /3 of 12 288 pages are wrong/);
  assert.doesNotMatch(text, /Every page is right/);
});

test("the map shades each cell by the share of its pages that are there", () => {
  const resident = new Uint8Array(100);
  resident.fill(1, 0, 20); // cells of 10 pages: two full, ...
  resident.fill(1, 20, 21); // ... one with a tenth, ...
  resident.fill(1, 30, 35); // ... one with half, ...
  resident.fill(1, 40, 49); // ... one with nearly all.
  assert.deepEqual(residencyShares(resident, 10), [1, 1, 0.1, 0.5, 0.9, 0, 0, 0, 0, 0]);
  assert.deepEqual(drawMap(resident, 5, 2, PLAIN), ["██░▒▓", "·····"]);
});

test("a memory of fewer pages than cells still has a map", () => {
  assert.deepEqual(residencyShares(Uint8Array.of(1, 0), 4), [1, 1, 0, 0]);
});

test("formatMs() has three digits and the unit that fits", () => {
  assert.deepEqual([0.0123, 0.2, 1.234, 98.76, 999, 1500, 12_345].map(formatMs), [
    "12 µs",
    "200 µs",
    "1.23 ms",
    "98.8 ms",
    "999 ms",
    "1.50 s",
    "12.35 s",
  ]);
});

test("the JSON report has exactly the keys of docs/demo.md", () => {
  const report = reportOf(result(all())) as Record<string, unknown>;
  const keys = (value: unknown) => Object.keys(value as object).sort();
  assert.deepEqual(keys(report), [
    "command",
    "guest",
    "image",
    "machine",
    "options",
    "restores",
    "samplePages",
    "totalMs",
    "verdict",
  ]);
  assert.deepEqual(keys((report.restores as unknown[])[0]), [
    "allTouchedMs",
    "bytesMoved",
    "bytesMovedUntilSample",
    "bytesZeroed",
    "faultAroundPages",
    "faultUs",
    "faults",
    "faultsToldBy",
    "faultsUntilSample",
    "firstByteMs",
    "guestReadRight",
    "name",
    "placement",
    "residencyAfterSample",
    "residentPagesAfterSample",
    "residentUs",
    "sampleTouchedMs",
    "wrongPages",
  ]);
  assert.equal(report.command, "minorfault demo --size 16MiB --seed 5 --guest process --fault-around 16");
});
