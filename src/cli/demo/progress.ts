// Progress on stderr while the demo works: one bar on a terminal, plain lines elsewhere, nothing when not wanted.
// A finished stage leaves one line behind.

import { SingleBar } from "cli-progress";
import type { GuestHost, Refusal } from "./guest.ts";
import type { Image } from "./image.ts";
import type { RestoreResult } from "./restore.ts";
import type { DemoObserver, DemoStep, Stage } from "./run.ts";
import { formatMs } from "./screen.ts";
import { formatCount, formatSize } from "./size.ts";
import { plain, type Style } from "./style.ts";

const STEP_TEXT: Readonly<Record<DemoStep, string>> = {
  build: "reading and hashing",
  "warm up": "warming up memory",
  start: "starting a guest",
  copy: "copying everything",
  "first byte": "first byte",
  sample: "touching a random 2 %",
  all: "touching everything",
  check: "checking SHA-256",
};
const LABEL_WIDTH = 14;
const BAR_WIDTH = 24;
/** Stages shorter than a blink are not worth a bar. */
const BAR_PAGES_MIN = 64;

export const SILENT: DemoObserver = {
  onGuest() {},
  onStep() {},
  onProgress() {},
  onImage() {},
  onRestore() {},
};

/** Progress for a stream of text. */
export class ProgressLines implements DemoObserver {
  readonly #stream: NodeJS.WriteStream;
  readonly #style: Style;
  readonly #bar: SingleBar | undefined;
  #stageBegan = performance.now();
  #stage: Stage | undefined;

  constructor(stream: NodeJS.WriteStream, style: Style) {
    this.#stream = stream;
    this.#style = style;
    if (!stream.isTTY) return;
    this.#bar = new SingleBar({
      stream,
      format: `  {stage} {bar} {step}`,
      barsize: BAR_WIDTH,
      barCompleteChar: plain("█", style),
      barIncompleteChar: plain("░", style),
      hideCursor: true,
      clearOnComplete: true,
      fps: 20,
      // We end by ourselves on signals, and put the cursor back.
      gracefulExit: false,
    });
  }

  onGuest(host: GuestHost, refusals: readonly Refusal[]): void {
    for (const { kind, reason } of refusals) this.#line(`guest is not ${kind}: ${reason}`);
    if (this.#bar === undefined) this.#line(`guest: ${host.guestText}`);
  }

  onStep(stage: Stage, step: DemoStep, pageCount: number): void {
    if (stage !== this.#stage) {
      this.#stage = stage;
      this.#stageBegan = performance.now();
    }
    if (this.#bar !== undefined) {
      this.#bar.stop();
      const payload = { stage: label(stage).padEnd(LABEL_WIDTH), step: STEP_TEXT[step] };
      if (pageCount >= BAR_PAGES_MIN) this.#bar.start(pageCount, 0, payload);
    } else if (pageCount >= BAR_PAGES_MIN) {
      this.#line(`${label(stage)}: ${STEP_TEXT[step]}, ${formatCount(pageCount)} pages`);
    }
  }

  onProgress(pagesDone: number): void {
    if (this.#bar?.isActive) this.#bar.update(pagesDone);
  }

  onImage(image: Image, ms: number): void {
    const { pageCount, byteLength } = image;
    this.#finish(`${formatSize(byteLength)} built, ${formatCount(pageCount)} pages hashed`, ms);
  }

  onRestore(result: RestoreResult): void {
    const { firstByteMs, allMs, wrongPages } = result;
    const verdict = wrongPages === 0 ? "all pages right" : `${formatCount(wrongPages)} pages WRONG`;
    const text = `first byte after ${formatMs(firstByteMs)}, everything after ${formatMs(allMs)}, ${verdict}`;
    this.#finish(text, performance.now() - this.#stageBegan);
  }

  /** Puts the terminal back as it was; at any moment. */
  close(): void {
    this.#bar?.stop();
  }

  #finish(text: string, ms: number): void {
    this.#bar?.stop();
    const mark = this.#style.paint("green", "✔");
    const took = this.#style.paint("dim", `(${formatMs(ms)})`);
    this.#line(`  ${mark} ${label(this.#stage ?? "image").padEnd(LABEL_WIDTH - 2)} ${text} ${took}`);
  }

  #line(text: string): void {
    this.#stream.write(`${plain(text, this.#style)}\n`);
  }
}

function label(stage: Stage): string {
  return stage.replaceAll("-", " ");
}
