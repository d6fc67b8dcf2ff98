// An image from a stream that a machine is sending right now. Chunks are hashed, compressed and stored while it comes;
// what the guest changes meanwhile is read once more at its end; the manifest is written last, when whoever watches
// the machine has said that all went well. Until then nothing of it is in the store that anybody could see.

import { type BuildOptions, type BuildReport, buildImage } from "../../image/index.ts";
import type { ObjectStore } from "../../source/object-store.ts";
import { regionNameOf } from "./block-names.ts";
import type { Landing } from "./incoming-stream.ts";
import { PageLanding } from "./page-landing.ts";
import { RamSpool } from "./ram-spool.ts";
import { HUGE_PAGE_BYTES, PAGE_BYTES } from "./stream-format.ts";
import { type MachineFacts, StreamParts } from "./stream-parts.ts";
import { StreamReader } from "./stream-reader.ts";

export interface CaptureStreamOptions
  extends Pick<BuildOptions, "codec" | "level" | "chunkBytes" | "ifAbsent" | "signal"> {
  readonly facts: MachineFacts;
  readonly notes?: Readonly<Record<string, string>>;
  /** Where the temporary file lies that RAM goes through; it may grow as large as RAM. */
  readonly temporaryFolder?: string | undefined;
  /** Waits until the machine says that it has sent everything; rejects if it has not. */
  readonly confirmed?: () => Promise<void>;
  /** Whether the machine may be kept waiting where that is faster; default false: it runs. */
  readonly isPatient?: boolean;
  /** Bytes of the stream that have come. */
  readonly onBytes?: (byteLength: number) => void;
}

export interface CaptureReport extends BuildReport {
  readonly streamBytes: number;
  /** Pages that came again, and with them chunks that were read twice. */
  readonly pagesSent: number;
  readonly revisedBytes: number;
}

/** Pieces of a stream, each of which may change when the next one is asked for; or who makes them, asking where to put what. */
export type StreamPieces = AsyncIterable<Uint8Array> | ((landing: Landing) => AsyncIterable<Uint8Array>);

/** Builds an image from a stream. */
export async function captureStream(
  store: ObjectStore,
  name: string,
  pieces: StreamPieces,
  options: CaptureStreamOptions,
): Promise<CaptureReport> {
  const capture = new Capture(store, name, options);
  try {
    return await capture.run(pieces);
  } finally {
    capture.close();
  }
}

class Capture {
  readonly #store: ObjectStore;
  readonly #name: string;
  readonly #options: CaptureStreamOptions;
  readonly #parts: StreamParts;
  readonly #reader: StreamReader;
  readonly #landing: PageLanding;
  #spool: RamSpool | undefined;
  #building: Promise<BuildReport> | undefined;
  #buildFailure: { readonly error: unknown } | undefined;
  #end: { readonly resolve: () => void; readonly reject: (error: unknown) => void } | undefined;
  #streamBytes = 0;
  #pagesSent = 0;
  #revisedBytes = 0;

  constructor(store: ObjectStore, name: string, options: CaptureStreamOptions) {
    this.#store = store;
    this.#name = name;
    this.#options = options;
    this.#parts = new StreamParts(options.facts);
    // With somebody to confirm the end, a stream need not show by itself that it is whole.
    this.#reader = new StreamReader({
      isWhole: options.confirmed !== undefined,
      sink: {
        page: (block, page, bytes) => this.#page(block, page, bytes),
        zero: (block, page) => this.#zero(block, page),
      },
    });
    this.#landing = new PageLanding(
      this.#reader,
      () => this.#read(),
      () => this.#spool,
    );
  }

  async run(pieces: StreamPieces): Promise<CaptureReport> {
    const { signal } = this.#options;
    const abort = () => this.#spool?.fail(signal?.reason);
    signal?.addEventListener("abort", abort, { once: true });
    try {
      await this.#receive(pieces);
    } catch (error) {
      this.#spool?.fail(error);
      this.#end?.reject(error);
      await this.#building?.catch(() => {});
      throw this.#buildFailure?.error ?? error;
    } finally {
      signal?.removeEventListener("abort", abort);
    }
    const report = await this.#building!;
    return {
      ...report,
      streamBytes: this.#received,
      pagesSent: this.#pagesSent + this.#landing.pages,
      revisedBytes: this.#revisedBytes,
    };
  }

  close(): void {
    this.#spool?.close();
    this.#landing.close();
  }

  /** Bytes of the stream so far. */
  get #received(): number {
    return this.#streamBytes + this.#landing.byteLength;
  }

  async #receive(pieces: StreamPieces): Promise<void> {
    const { onBytes, signal, confirmed, isPatient } = this.#options;
    for await (const piece of typeof pieces === "function" ? pieces(this.#landing) : pieces) {
      signal?.throwIfAborted();
      if (this.#buildFailure !== undefined) throw this.#buildFailure.error;
      this.#streamBytes += piece.byteLength;
      this.#reader.push(piece);
      this.#read();
      this.#reader.keep();
      onBytes?.(this.#received);
      if (isPatient) await this.#spool?.asked();
    }
    this.#reader.end();
    this.#read();
    // Before anything is believed of a stream that has ended: its sender may have given up.
    await confirmed?.();
    this.#parts.extras();
    this.#spool?.finish();
    this.#end?.resolve();
  }

  #read(): void {
    const reader = this.#reader;
    for (let event = reader.read(); event !== undefined; event = reader.read()) {
      if (event.kind === "page") this.#page(event.block, event.page, event.bytes!);
      else if (event.kind === "zero") this.#zero(event.block, event.page);
      else {
        this.#parts.add(event);
        if (event.kind === "blocks") this.#build();
      }
    }
  }

  #page(block: number, page: number, bytes: Uint8Array): void {
    this.#pagesSent++;
    this.#spool!.page(block, page, bytes);
  }

  #zero(block: number, page: number): void {
    this.#pagesSent++;
    this.#spool!.zero(block, page);
  }

  /** The blocks are known: begins to build, from a spool that is empty yet. */
  #build(): void {
    const {
      confirmed: _,
      facts: _facts,
      notes = {},
      temporaryFolder,
      isPatient: _patient,
      onBytes: _on,
      ...options
    } = this.#options;
    const blocks = this.#parts.blocks!;
    const spool = new RamSpool(blocks, { folder: temporaryFolder });
    this.#spool = spool;
    const ended = new Promise<void>((resolve, reject) => {
      this.#end = { resolve, reject };
    });
    ended.catch(() => {});
    this.#building = buildImage(this.#store, this.#name, {
      ...options,
      notes,
      regions: blocks.map((block, index) => ({
        name: regionNameOf(block.name),
        pageSize: this.#parts.pageSizeOf(block) === PAGE_BYTES ? PAGE_BYTES : HUGE_PAGE_BYTES,
        source: spool.sources[index]!,
      })),
      ending: async (readBuilt) => {
        await ended;
        spool.giveAgain((block, offset, target) => readBuilt(block, offset, target));
        const revised = new Map(
          blocks.map((block, index) => [regionNameOf(block.name), spool.revised(index)] as const),
        );
        for (const ranges of revised.values()) {
          this.#revisedBytes += ranges.reduce((sum, { start, until }) => sum + until - start, 0);
        }
        return { ...this.#parts.extras(), revised };
      },
    });
    this.#building.catch((error: unknown) => {
      this.#buildFailure = { error };
      spool.fail(error);
    });
  }
}
