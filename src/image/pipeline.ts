// Sends chunks through the stages of a build, several batches at once.
//
//   read ──▶ hash ──▶ decide ──▶ compress ──▶ settle ──▶ write
//            threads   in order   threads      in order    the store, in order

import type { Builder, Decision } from "./builder.ts";
import { type ChunkRun, readChunks } from "./chunk-plan.ts";
import { type Batch, batchChunks, type Cruncher } from "./cruncher.ts";
import { HASH_BYTES } from "./limits.ts";

export interface PipelineOptions {
  readonly chunkBytes: number;
  readonly cruncher: Cruncher;
  readonly signal: AbortSignal | undefined;
  /** Called with the number of chunks that have been settled. */
  readonly onChunks: (chunks: number) => void;
}

/** Runs that fill one batch, or a run of chunks that are known to be zeros. */
interface Step {
  readonly runs: readonly ChunkRun[];
  readonly isGap: boolean;
}

export async function runPipeline(
  builder: Builder,
  runs: readonly ChunkRun[],
  options: PipelineOptions,
): Promise<void> {
  const pipeline = new Pipeline(builder, options);
  try {
    for (const step of stepsOf(runs, batchChunks(options.chunkBytes))) await pipeline.add(step);
  } finally {
    await pipeline.end();
  }
}

class Pipeline {
  readonly #builder: Builder;
  readonly #options: PipelineOptions;
  /** Ends of the two stages that go in order. */
  #decided: Promise<unknown> = Promise.resolve();
  #settled: Promise<unknown> = Promise.resolve();
  /** What the store has taken from the last batch; those before it were taken before. */
  #written: Promise<unknown> = Promise.resolve();
  /** Whether most chunks of the last batch that was decided on were new, so that those of the next ones may be. */
  #areNew = false;
  #failure: { readonly error: unknown } | undefined;
  #fail: (error: unknown) => void = () => {};
  /** Rejects with the first failure: after one, batches are not given back any more. */
  readonly #failed: Promise<never>;

  constructor(builder: Builder, options: PipelineOptions) {
    this.#builder = builder;
    this.#options = options;
    this.#failed = new Promise((_, reject) => {
      this.#fail = reject;
    });
    this.#failed.catch(() => {});
  }

  /** Returns when there is room for the next step, not when this one is done. */
  async add(step: Step): Promise<void> {
    this.#check();
    if (step.isGap) {
      const { first, until } = step.runs[0]!;
      this.#settled = this.#after(this.#settled, async () => {
        await this.#builder.index.clear(first, until);
        this.#options.onChunks(until - first);
      });
      return;
    }
    const batch = await Promise.race([this.#options.cruncher.take(), this.#failed]);
    this.#check();
    const chunks = step.runs.flatMap(({ first, until }) =>
      Array.from({ length: until - first }, (_, index) => first + index),
    );
    const hashed = this.#noted(this.#hash(step.runs, batch, chunks.length));
    const decided = this.#after(this.#decided, () => this.#decide(hashed, batch, chunks));
    this.#decided = decided;
    this.#settled = this.#after(this.#settled, async () => this.#settle(await decided, batch, chunks));
  }

  /** Waits until nothing is on its way; throws what went wrong. */
  async end(): Promise<void> {
    await Promise.allSettled([this.#decided, this.#settled]);
    await Promise.allSettled([this.#written]);
    this.#check();
  }

  async #hash(runs: readonly ChunkRun[], batch: Batch, chunks: number): Promise<void> {
    const { chunkBytes, signal } = this.#options;
    batch.zeros.fill(0);
    let place = 0;
    for (const run of runs) {
      const end = place + run.until - run.first;
      const target = batch.bytes.subarray(place * chunkBytes, end * chunkBytes);
      const zeros = batch.zeros.subarray(place, end);
      await readChunks(run, run.first, target, chunkBytes, zeros, signal);
      place = end;
    }
    if (batch.zeros.subarray(0, chunks).includes(0)) await batch.hash(chunks, this.#areNew);
  }

  async #decide(
    hashed: Promise<void>,
    batch: Batch,
    chunks: readonly number[],
  ): Promise<{ decisions: Decision[]; compressed: Promise<void> }> {
    const { index } = this.#builder;
    const parents = await Promise.all(chunks.map((chunk) => index.inParent(chunk)));
    await hashed;
    const decisions = parents.map((parent, place) => this.#builder.decide(parent, batch, place));
    const fresh = decisions.flatMap(({ what }, place) => (what === "new" ? [place] : []));
    const known = decisions.filter(({ what }) => what === "known" || what === "parent").length;
    if (fresh.length + known > 0) this.#areNew = fresh.length > known;
    return { decisions, compressed: this.#noted(batch.compress(fresh)) };
  }

  async #settle(
    { decisions, compressed }: { decisions: readonly Decision[]; compressed: Promise<void> },
    batch: Batch,
    chunks: readonly number[],
  ): Promise<void> {
    const { chunkBytes, onChunks } = this.#options;
    await compressed;
    for (const [place, chunk] of chunks.entries()) {
      const hash = batch.hashes.subarray(place * HASH_BYTES, (place + 1) * HASH_BYTES);
      await this.#builder.settle(chunk, decisions[place]!, hash, chunkBytes, () => batch.stored(place));
    }
    // The next batch is settled meanwhile.
    this.#written = this.#noted(this.#builder.writer.flush().then(() => batch.release()));
    onChunks(chunks.length);
  }

  /** Does something when what comes before it has gone well. */
  #after<T>(before: Promise<unknown>, work: () => Promise<T>): Promise<T> {
    return this.#noted(
      before.then(() => {
        this.#check();
        return work();
      }),
    );
  }

  /** Remembers the first failure; whoever waits for the promise still gets it. */
  #noted<T>(promise: Promise<T>): Promise<T> {
    promise.catch((error: unknown) => {
      this.#failure ??= { error };
      this.#fail(error);
    });
    return promise;
  }

  #check(): void {
    this.#options.signal?.throwIfAborted();
    if (this.#failure !== undefined) throw this.#failure.error;
  }
}

/** Cuts runs into steps: short ones are gathered into one batch, long ones fill several. */
function* stepsOf(runs: readonly ChunkRun[], capacity: number): Generator<Step> {
  let gathered: ChunkRun[] = [];
  let room = capacity;
  for (const run of runs) {
    if (run.source === undefined) {
      if (gathered.length > 0) yield { runs: gathered, isGap: false };
      gathered = [];
      room = capacity;
      yield { runs: [run], isGap: true };
      continue;
    }
    for (let first = run.first; first < run.until; ) {
      const until = Math.min(run.until, first + room);
      gathered.push({ ...run, first, until });
      room -= until - first;
      first = until;
      if (room > 0) continue;
      yield { runs: gathered, isGap: false };
      gathered = [];
      room = capacity;
    }
  }
  if (gathered.length > 0) yield { runs: gathered, isGap: false };
}
