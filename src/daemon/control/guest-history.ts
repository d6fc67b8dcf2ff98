// What happened to one guest, in columns of time. A column is what was between two looks at its counters. When there are
// too many, neighbours become one: the beginning of a long life gets coarser, memory does not grow.
//
//   looks      │ 20 ms │ 20 ms │ 20 ms │ ...             240 columns
//   later      │     40 ms     │     40 ms     │ ...     120, and room for 120 more

import { quantile } from "../../base/histogram.ts";
import type { EndReason, GuestStatus } from "../guests.ts";
import { type Happening, HEAT_CELLS, type History, type HistoryColumn, MAP_CELLS } from "./history-schema.ts";
import { countParts } from "./page-counts.ts";
import { isoTime } from "./status.ts";

/** LIMIT: columns of a guest. */
const COLUMNS_MAX = 240;
/** LIMIT: happenings that are kept of a guest: the first and the last ones. */
const HAPPENINGS_MAX = 100;
const PAGE = 4096;

interface Column {
  startMs: number;
  ms: number;
  faults: number;
  bytesInstalled: number;
  bytesReplayed: number;
  residentBytes: number;
  waiting: number;
  maxUs: number;
  readonly heat: Uint32Array;
  /** Only the buckets that count something: bucket, count, bucket, count ... */
  latencies: Map<number, number>;
}

interface Seen {
  readonly faults: number;
  readonly bytesInstalled: number;
  readonly bytesReplayed: number;
  readonly latencyCounts: Float64Array;
}

export class GuestHistory {
  readonly #first: GuestStatus;
  #columns: Column[] = [];
  readonly #happenings: Happening[] = [];
  #seen: Seen = { faults: 0, bytesInstalled: 0, bytesReplayed: 0, latencyCounts: new Float64Array(0) };
  #seenMap: Float64Array = new Float64Array(MAP_CELLS);
  #map: number[] = [];
  /** Milliseconds since the epoch of the last look. */
  #lookedAt: number;
  #ended: History["ended"];
  #lastWord = "";

  constructor(status: GuestStatus) {
    this.#first = status;
    this.#lookedAt = status.since;
  }

  get id(): string {
    return this.#first.id;
  }

  /** Milliseconds since the hand-over. */
  age(now: number): number {
    return now - this.#first.since;
  }

  /** Looks at the guest's counters; answers whether anything has changed. */
  look(status: GuestStatus, now: number): boolean {
    const { faults, bytesInstalled, bytesReplayed, latencyCounts, latencyUs, waiting } = status.statistics;
    // A pager that took over counts anew.
    const isNew = faults < this.#seen.faults || bytesInstalled < this.#seen.bytesInstalled;
    const before = isNew ? NOTHING_SEEN : this.#seen;
    const hasMoved = isNew || faults !== before.faults || bytesInstalled !== before.bytesInstalled;
    const word = `${faults} ${bytesInstalled} ${status.statistics.events} ${waiting}`;
    if (word === this.#lastWord && this.#columns.length > 0) {
      const last = this.#columns.at(-1)!;
      // Nothing happened: the quiet goes on in the column that has it already.
      if (last.faults === 0 && last.bytesInstalled === 0 && last.waiting === waiting) {
        last.ms += now - this.#lookedAt;
        this.#lookedAt = now;
        return false;
      }
    }
    this.#lastWord = word;
    const counts = countParts(status.residency(), MAP_CELLS);
    const column: Column = {
      startMs: this.#lookedAt - this.#first.since,
      ms: now - this.#lookedAt,
      faults: faults - before.faults,
      bytesInstalled: bytesInstalled - before.bytesInstalled,
      bytesReplayed: Math.max(0, bytesReplayed - before.bytesReplayed),
      residentBytes: counts.resident.reduce((sum, bytes) => sum + bytes, 0),
      waiting,
      maxUs: latencyUs.max,
      heat: heatOf(this.#seenMap, counts.resident),
      latencies: countsSince(before.latencyCounts, latencyCounts),
    };
    this.#seen = { faults, bytesInstalled, bytesReplayed, latencyCounts };
    this.#seenMap = counts.resident;
    this.#map = Array.from(counts.resident, (bytes, part) => share(bytes, counts.totals[part]!));
    this.#lookedAt = now;
    this.#columns.push(column);
    if (this.#columns.length > COLUMNS_MAX) this.#columns = halved(this.#columns);
    return hasMoved;
  }

  note(kind: string, text: string, now: number): void {
    if (this.#happenings.length === HAPPENINGS_MAX) this.#happenings.splice(HAPPENINGS_MAX / 2, 1);
    this.#happenings.push({ atMs: Math.max(0, this.age(now)), kind, text });
  }

  end(reason: EndReason, detail: string | undefined, now: number): void {
    this.#ended = { reason, ...(detail === undefined ? {} : { detail }), atMs: this.age(now) };
  }

  toJSON(): History {
    const { id, name, image, pid, since, byteLength, regions } = this.#first;
    return {
      id,
      ...(name === undefined ? {} : { name }),
      image,
      pid,
      since: isoTime(since),
      byteLength,
      pageSize: regions[0]?.pageSize ?? PAGE,
      ...(this.#ended === undefined ? {} : { ended: this.#ended }),
      columns: this.#columns.map(columnJson),
      map: this.#map,
      happenings: this.#happenings,
    };
  }

  /** The last column that was finished, for whoever draws as it goes. */
  get last(): HistoryColumn | undefined {
    const column = this.#columns.at(-1);
    return column === undefined ? undefined : columnJson(column);
  }

  /** Share of each part of the memory that is resident. */
  get map(): readonly number[] {
    return this.#map;
  }
}

const NOTHING_SEEN: Seen = {
  faults: 0,
  bytesInstalled: 0,
  bytesReplayed: 0,
  latencyCounts: new Float64Array(0),
};

function columnJson(column: Column): HistoryColumn {
  const { startMs, ms, faults, bytesInstalled, bytesReplayed, residentBytes, waiting, maxUs } = column;
  return {
    startMs,
    ms,
    faults,
    bytesInstalled,
    bytesReplayed,
    residentBytes,
    waiting,
    heat: [...column.heat],
    ...(column.latencies.size === 0 ? {} : { latencyUs: latencyOf(column.latencies, maxUs) }),
  };
}

/** Pages that became resident in each part of the heat map. */
function heatOf(before: Float64Array, after: Float64Array): Uint32Array {
  const heat = new Uint32Array(HEAT_CELLS);
  const each = MAP_CELLS / HEAT_CELLS;
  for (let part = 0; part < MAP_CELLS; part++) {
    const more = after[part]! - before[part]!;
    if (more > 0) heat[Math.floor(part / each)]! += more / PAGE;
  }
  return heat;
}

function countsSince(before: Float64Array, after: Float64Array): Map<number, number> {
  const more = new Map<number, number>();
  for (const [bucket, count] of after.entries()) {
    const difference = count - (before[bucket] ?? 0);
    if (difference > 0) more.set(bucket, difference);
  }
  return more;
}

function latencyOf(latencies: Map<number, number>, maxUs: number): NonNullable<HistoryColumn["latencyUs"]> {
  const counts = new Float64Array(Math.max(...latencies.keys()) + 1);
  for (const [bucket, count] of latencies) counts[bucket] = count;
  const us = (part: number): number => Math.min(quantile(counts, part) / 1000, maxUs);
  return { p50: us(0.5), p99: us(0.99), max: us(1) };
}

function share(bytes: number, total: number): number {
  return total === 0 ? 0 : Math.round((bytes / total) * 1000) / 1000;
}

/** Every two columns as one. */
function halved(columns: readonly Column[]): Column[] {
  const result: Column[] = [];
  for (let index = 0; index < columns.length; index += 2) {
    const [one, other] = [columns[index]!, columns[index + 1]];
    result.push(other === undefined ? one : joined(one, other));
  }
  return result;
}

function joined(one: Column, other: Column): Column {
  const latencies = new Map(one.latencies);
  for (const [bucket, count] of other.latencies) latencies.set(bucket, (latencies.get(bucket) ?? 0) + count);
  return {
    startMs: one.startMs,
    ms: one.ms + other.ms,
    faults: one.faults + other.faults,
    bytesInstalled: one.bytesInstalled + other.bytesInstalled,
    bytesReplayed: one.bytesReplayed + other.bytesReplayed,
    residentBytes: other.residentBytes,
    waiting: Math.max(one.waiting, other.waiting),
    maxUs: Math.max(one.maxUs, other.maxUs),
    heat: one.heat.map((pages, part) => pages + other.heat[part]!),
    latencies,
  };
}
