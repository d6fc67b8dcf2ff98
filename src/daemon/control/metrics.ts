// /metrics: counters for Prometheus, by its usual client library. The hot counters live in the pager's memory; they are
// read when somebody asks, never copied meanwhile. Labels name images, not guests: a guest is one of very many.

import { Counter, collectDefaultMetrics, Gauge, type Metric, Registry } from "prom-client";
import { bucketUntil } from "../../base/histogram.ts";
import { cacheTotals } from "../../source/cache-totals.ts";
import { plain } from "../../source/plain-url.ts";
import type { GuestTable } from "../guests.ts";
import { imageJson } from "./status.ts";
import { type ImageTotals, Totals } from "./totals.ts";

/** Upper bounds of the latency histogram, seconds. */
const LATENCY_BOUNDS: readonly number[] = [-6, -5, -4, -3, -2, -1].flatMap((power) =>
  // By its digits: 2.5 * 1e-6 is not what people write.
  [1, 2.5, 5].map((digit) => Number(`${digit}e${power}`)),
);

/** How the faults ended whose page was there or came; those of minor faults are told apart by their outcome. */
const KIND = {
  copied: "missing",
  zeroed: "missing",
  continued: "minor",
  poisoned: "any",
  woken: "any",
} as const;

export class Metrics {
  readonly #registry = new Registry();
  readonly #totals: Totals;
  /** As they were when somebody asked last: all metrics of an answer are of one moment. */
  #read: ReadonlyMap<string, ImageTotals> = new Map();
  readonly #requests: Counter;

  constructor(table: GuestTable, version: string) {
    this.#totals = new Totals(table);
    const registers = [this.#registry];
    collectDefaultMetrics({ register: this.#registry });
    const counter = (name: string, help: string, labelNames: string[], read: Read) =>
      new Counter({ name, help, labelNames, registers, collect: collector((each) => each.inc, read) });
    const gauge = (name: string, help: string, labelNames: string[], read: Read) =>
      new Gauge({ name, help, labelNames, registers, collect: collector((each) => each.set, read) });
    const ofImages = (value: (totals: ImageTotals) => number) => (): Sample[] =>
      [...this.#read].map(([image, totals]) => [{ image }, value(totals)]);

    counter("minorfault_faults_total", "Faults by how they ended", ["image", "kind", "outcome"], () =>
      [...this.#read].flatMap(([image, { outcomes }]) =>
        Object.entries(outcomes).map(
          ([outcome, count]): Sample => [{ image, kind: KIND[outcome as keyof typeof KIND], outcome }, count],
        ),
      ),
    );
    counter("minorfault_installed_bytes_total", "Bytes given to guests", ["image", "how"], () =>
      [...this.#read].flatMap(([image, { bytesCopied, bytesZeroed }]): Sample[] => [
        [{ image, how: "copied" }, bytesCopied],
        [{ image, how: "zeroed" }, bytesZeroed],
      ]),
    );
    counter(
      "minorfault_replayed_bytes_total",
      "Of the installed bytes, those that a working set brought ahead of the guest",
      ["image"],
      ofImages(({ bytesReplayed }) => bytesReplayed),
    );
    counter(
      "minorfault_events_total",
      "Messages other than faults: memory given away, moved or unmapped",
      ["image"],
      ofImages(({ events }) => events),
    );
    counter(
      "minorfault_retries_total",
      "Fills that the kernel put off",
      ["image"],
      ofImages(({ retries }) => retries),
    );
    gauge("minorfault_guests", "Guests that are there", ["image", "state"], () =>
      [...this.#read].flatMap(([image, { guests, draining }]): Sample[] => [
        [{ image, state: "serving" }, guests - draining],
        [{ image, state: "draining" }, draining],
      ]),
    );
    gauge(
      "minorfault_guest_bytes",
      "Memory of the guests that are there",
      ["image"],
      ofImages(({ guestBytes }) => guestBytes),
    );
    gauge(
      "minorfault_guest_resident_bytes",
      "Of it, what is resident",
      ["image"],
      ofImages((totals) => totals.residentBytes),
    );
    gauge(
      "minorfault_faults_waiting",
      "Faults that wait for their bytes now",
      ["image"],
      ofImages(({ waiting }) => waiting),
    );
    counter(
      "minorfault_faults_by_bytes_total",
      "Faults by where their bytes were: at hand (in memory, in a neighbour's block), read, fetched, on their way",
      ["image", "bytes"],
      () => [...this.#read].flatMap(([image, totals]) => whereBytesWere(image, totals)),
    );
    counter(
      "minorfault_ahead_units_total",
      "Units of 64 KiB and more that were asked for ahead of the guest",
      ["image"],
      ofImages(({ away }) => away.ahead),
    );
    counter(
      "minorfault_ahead_met_total",
      "Faults that found such a unit on its way: it was wanted, though not early enough",
      ["image"],
      ofImages(({ away }) => away.aheadMet),
    );
    counter(
      "minorfault_cache_blocks_total",
      "Blocks of the cache on disk by what became of them: found, missed, removed for others, damaged, not written",
      ["what"],
      () => Object.entries(cacheTotals()).map(([what, count]): Sample => [{ what }, count]),
    );
    gauge(
      "minorfault_image_info",
      "Always 1: an image, its source and its state",
      ["image", "source", "state"],
      () =>
        table
          .images()
          .map(imageJson)
          .map(({ name, url, state }): Sample => [{ image: name, source: plain(url), state }, 1]),
    );
    this.#ofServer(table, counter, gauge);
    gauge("minorfault_info", "Always 1", ["version"], () => [[{ version }, 1]]);
    this.#requests = new Counter({
      name: "minorfault_control_requests_total",
      help: "Answers of the control API",
      labelNames: ["operation", "status"],
      registers,
    });
    this.#registry.registerMetric(new LatencyHistogram(() => this.#read) as unknown as Metric);
  }

  get contentType(): string {
    return this.#registry.contentType;
  }

  text(): Promise<string> {
    this.#read = this.#totals.read();
    return this.#registry.metrics();
  }

  /** Counts an answer of the control API. */
  countRequest(operation: string, status: number): void {
    this.#requests.inc({ operation, status: String(status) });
  }

  close(): void {
    this.#totals.close();
    this.#registry.clear();
  }

  #ofServer(table: GuestTable, counter: Make, gauge: Make): void {
    const counters = () => table.counters;
    counter("minorfault_connections_total", "Connections at the images' sockets", [], () => [
      [{}, counters().connections],
    ]);
    counter("minorfault_hand_overs_total", "Guests that were handed over", [], () => [
      [{}, counters().handOvers],
    ]);
    counter("minorfault_refused_total", "Hand-overs that were refused", ["code"], () =>
      Object.entries(counters().refused).map(([code, count]): Sample => [{ code }, count]),
    );
    counter("minorfault_guests_ended_total", "Guests that have left", ["reason"], () =>
      Object.entries(counters().ended).map(([reason, count]): Sample => [{ reason }, count]),
    );
    counter("minorfault_takeovers_total", "Pagers that took over from one that had ended", [], () => [
      [{}, counters().takeovers],
    ]);
    counter("minorfault_keeper_restarts_total", "Keepers that were started after the first one", [], () => [
      [{}, counters().keepers],
    ]);
    gauge("minorfault_ready", "1 when guests can be handed over", [], () => [
      [{}, table.health.ready ? 1 : 0],
    ]);
    gauge("minorfault_guests_expected", "Guests that are announced and have not come", [], () => [
      [{}, table.expected().length],
    ]);
    gauge("minorfault_limit", "Limits as they are set", ["limit"], () =>
      Object.entries(table.limits).map(([limit, value]): Sample => [{ limit }, value]),
    );
  }
}

function whereBytesWere(image: string, { outcomes, away }: ImageTotals): Sample[] {
  const faults = Object.values(outcomes).reduce((sum, count) => sum + count, 0);
  const { read, fetched, joined } = away;
  const counts = { "at-hand": Math.max(0, faults - read - fetched - joined), read, fetched, joined };
  return Object.entries(counts).map(([bytes, count]) => [{ image, bytes }, count]);
}

type Labels = Readonly<Record<string, string>>;
type Sample = readonly [labels: Labels, value: number];
type Read = () => readonly Sample[];
type Make = (name: string, help: string, labelNames: string[], read: Read) => unknown;

/** Sets a metric to what is read, when it is asked for. */
function collector<Metric extends { reset(): void }>(
  write: (metric: Metric) => (labels: Labels, value: number) => void,
  read: Read,
) {
  return function collect(this: Metric): void {
    this.reset();
    for (const [labels, value] of read()) write(this).call(this, labels, value);
  };
}

/** The pagers' own histograms, as they are: the library's would want to be told of every fault. */
class LatencyHistogram {
  readonly name = "minorfault_fault_latency_seconds";
  readonly #read: () => ReadonlyMap<string, ImageTotals>;

  constructor(read: () => ReadonlyMap<string, ImageTotals>) {
    this.#read = read;
  }

  /** What a registry asks of a metric. */
  async get(): Promise<object> {
    const { name } = this;
    const help = "From the read of a fault's message until its page was installed";
    const values = [...this.#read()].flatMap(([image, { latencyCounts, latencySumUs }]) => {
      const below = cumulative(latencyCounts);
      const total = latencyCounts.reduce((sum, count) => sum + count, 0);
      const bucket = (le: number | string, value: number) => ({
        metricName: `${name}_bucket`,
        labels: { image, le },
        value,
      });
      return [
        ...LATENCY_BOUNDS.map((bound, index) => bucket(bound, below[index]!)),
        bucket("+Inf", total),
        { metricName: `${name}_sum`, labels: { image }, value: latencySumUs / 1e6 },
        { metricName: `${name}_count`, labels: { image }, value: total },
      ];
    });
    return { name, help, type: "histogram", aggregator: "sum", values };
  }

  reset(): void {}
}

/** Faults that took no longer than each bound. A bucket that a bound cuts through counts as slower. */
function cumulative(counts: Float64Array): number[] {
  return LATENCY_BOUNDS.map((bound) => {
    let sum = 0;
    for (const [bucket, count] of counts.entries()) {
      if (bucketUntil(bucket) - 1 > bound * 1e9) break;
      sum += count;
    }
    return sum;
  });
}
