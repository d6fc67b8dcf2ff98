// npm run bench -- qemu: a saved machine that starts lazily, beside QEMU's own -incoming of the same state.

import { LoadMeter } from "./load.ts";
import { QemuStage } from "./qemu-stage.ts";
import { atLeast, atMost, type Group, rowsOf } from "./report.ts";
import { alternate, type Contestant, median, medianOf, ratioOf } from "./rounds.ts";

const EAGER = "QEMU -incoming exec:cat";
const LAZY = "lazy";
const REPLAY = "lazy, working set ahead";
const CUT = "lazy, cut in the middle";
const FETCH_MS = 5;
/** Of what a machine has, the guest fills this share: the rest is its system's, and zeros. */
const FILL_SHARE = 0.55;
const FILL_SHARE_BIG = 0.78;

export interface QemuOptions {
  readonly rounds: number;
  readonly quick?: boolean;
  readonly meter?: LoadMeter;
}

export async function qemu({
  rounds,
  quick = false,
  meter = new LoadMeter(),
}: QemuOptions): Promise<Group[]> {
  const sizes = quick ? [256] : [1024, 4096];
  const groups: Group[] = [];
  const shells: number[] = [];
  for (const memoryMiB of sizes) {
    const share = memoryMiB > 2048 ? FILL_SHARE_BIG : FILL_SHARE;
    const stage = await QemuStage.boot(memoryMiB, Math.round(memoryMiB * share), meter);
    try {
      groups.push(await captures(stage, rounds, meter));
      await stage.prepare();
      const restores = await restoresOf(stage, rounds, meter);
      shells.push(restores.shellMs);
      groups.push(restores.group);
      if (memoryMiB !== sizes[0]) continue;
      groups.push(await waits(stage, rounds, meter), await farAway(stage, rounds, meter));
    } finally {
      await stage.close();
    }
  }
  const [small, big] = shells;
  const last = groups.at(-1);
  if (small !== undefined && big !== undefined && last !== undefined) {
    const verdicts = [...last.verdicts, atMost("shell with a working set, 4 GiB : 1 GiB", big / small, 1.3)];
    groups[groups.length - 1] = { ...last, verdicts };
  }
  return groups;
}

async function captures(stage: QemuStage, rounds: number, meter: LoadMeter): Promise<Group> {
  const shares: number[] = [];
  const contestants: Contestant[] = [
    { name: SAVED, run: () => stage.saveByQemu() },
    {
      name: CAPTURED,
      run: async () => {
        const startedAt = performance.now();
        const first = await stage.capture("first");
        const ms = performance.now() - startedAt;
        const second = await stage.capture("second");
        shares.push((second.chunks.stored * second.manifest.chunkBytes * 100) / second.manifest.byteLength);
        // Nothing of it is known in the next round.
        stage.forget();
        return { ms, writtenMiB: first.writtenBytes / 2 ** 20 };
      },
    },
  ];
  const series = await alternate(contestants, rounds, meter);
  return {
    title: `${stage.memoryMiB} MiB machine that stands: QEMU's own saving, and capturing it into an image`,
    columns: [
      { key: "ms", title: "ms", digits: 0 },
      { key: "writtenMiB", title: "written MiB", digits: 0 },
    ],
    rows: rowsOf(series),
    verdicts: [
      atMost("captured : saved", ratioOf(series, "ms", CAPTURED, SAVED), 1.5),
      atMost("new in a second capture of an idle machine, %", median(shares), 2),
    ],
    notes: [
      "capturing hashes and compresses all of it; chunks of images that were forgotten are not found again",
    ],
    rounds,
    repeated: series.repeated,
    load: series.load,
  };
}

const SAVED = 'migrate "exec:cat > file"';
const CAPTURED = "minorfault qemu capture";

async function restoresOf(
  stage: QemuStage,
  rounds: number,
  meter: LoadMeter,
): Promise<{ group: Group; shellMs: number }> {
  const contestants: Contestant[] = [
    { name: EAGER, run: () => stage.eager() },
    { name: LAZY, run: () => stage.lazy({ replay: false }) },
    { name: REPLAY, run: () => stage.lazy({ replay: true }) },
    { name: CUT, run: () => stage.lazy({ replay: true, cut: true }) },
  ];
  const series = await alternate(contestants, rounds, meter);
  const isBig = stage.memoryMiB > 2048;
  const verdicts = [
    atLeast("until it runs, eager : lazy", ratioOf(series, "runMs", EAGER, LAZY), isBig ? 1000 : 100),
    atLeast(
      "until the shell answers, eager : working set",
      ratioOf(series, "shellMs", EAGER, REPLAY),
      isBig ? 30 : 6,
    ),
    atMost("everything moved, lazy : eager", ratioOf(series, "allMs", REPLAY, EAGER), 1.3),
    ...(isBig ? [] : [atMost("recovery after a cut, ms", medianOf(series, CUT, "recoveredMs"), 30)]),
  ];
  const group: Group = {
    title: `${stage.memoryMiB} MiB machine: until it runs, its shell answers, everything is there`,
    columns: [
      { key: "runMs", title: "runs ms", digits: 1 },
      { key: "shellMs", title: "shell ms", digits: 0 },
      { key: "allMs", title: "all ms", digits: 0 },
      { key: "requests", title: "requests", digits: 0 },
      { key: "recoveredMs", title: "recovered ms", digits: 1 },
    ],
    rows: rowsOf(series),
    verdicts,
    notes: [
      "from before the image is opened, QEMU being started and waiting; emulated (tcg), page cache warm",
    ],
    rounds,
    repeated: series.repeated,
    load: series.load,
  };
  return { group, shellMs: medianOf(series, REPLAY, "shellMs") };
}

async function farAway(stage: QemuStage, rounds: number, meter: LoadMeter): Promise<Group> {
  const far = { delayMs: FETCH_MS, push: false };
  const contestants: Contestant[] = [
    { name: "page by page", run: () => stage.lazy({ ...far, replay: false, isPlain: true }) },
    { name: LAZY, run: () => stage.lazy({ ...far, replay: false }) },
    { name: REPLAY, run: () => stage.lazy({ ...far, replay: true }) },
  ];
  const series = await alternate(contestants, rounds, meter);
  return {
    title: `${stage.memoryMiB} MiB machine, every read of the image ${FETCH_MS} ms away`,
    columns: [
      { key: "runMs", title: "runs ms", digits: 1 },
      { key: "shellMs", title: "shell ms", digits: 0 },
    ],
    rows: rowsOf(series),
    verdicts: [
      atLeast(
        "until the shell answers, page by page : working set",
        ratioOf(series, "shellMs", "page by page", REPLAY),
        40,
      ),
    ],
    notes: ["lazy: with the chunk that a page lies in; page by page: what demand paging alone does"],
    rounds,
    repeated: series.repeated,
    load: series.load,
  };
}

async function waits(stage: QemuStage, rounds: number, meter: LoadMeter): Promise<Group> {
  const contestants: Contestant[] = [
    { name: "nothing is pushed", run: (round) => stage.waits(false, round) },
    { name: "all is pushed meanwhile", run: (round) => stage.waits(true, round) },
  ];
  const series = await alternate(contestants, rounds, meter);
  const ratio = ratioOf(series, "p99Us", "all is pushed meanwhile", "nothing is pushed");
  return {
    title: `${stage.memoryMiB} MiB machine: what a page takes that is asked for`,
    columns: [
      { key: "p50Us", title: "p50 us", digits: 0 },
      { key: "p99Us", title: "p99 us", digits: 0 },
      { key: "waits", title: "waits", digits: 0 },
    ],
    rows: rowsOf(series),
    verdicts: [atMost("p99 wait, pushed : not pushed", ratio, 2)],
    notes: ["asked for by a thread that plays the destination, one page after the other, at random"],
    rounds,
    repeated: series.repeated,
    load: series.load,
  };
}
