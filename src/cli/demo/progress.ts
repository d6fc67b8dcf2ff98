// Progress on stderr while the demo works: a bar and the memory itself on a terminal, plain lines elsewhere.
// A finished stage leaves one line behind.

import type { DemoHost, PagedGuest, Refusal } from "./guest.ts";
import type { Image } from "./image.ts";
import { LiveView } from "./live-view.ts";
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
/** Steps shorter than a blink are not told of. */
const PAGES_MIN = 64;

export const SILENT: DemoObserver = {
  onHost() {},
  onGuest() {},
  onStep() {},
  onProgress() {},
  onImage() {},
  onRestore() {},
};

export class Progress implements DemoObserver {
  readonly #stream: NodeJS.WriteStream;
  readonly #style: Style;
  /** On a terminal only. */
  readonly #view: LiveView | undefined;
  #stageBegan = performance.now();
  #stage: Stage | undefined;

  constructor(stream: NodeJS.WriteStream, style: Style) {
    this.#stream = stream;
    this.#style = style;
    if (stream.isTTY) this.#view = new LiveView(stream, style);
  }

  onHost(host: DemoHost, refusals: readonly Refusal[]): void {
    for (const { kind, reason } of refusals) this.#line(`guest is not ${kind}: ${reason}`);
    if (this.#view === undefined) this.#line(`guest: ${host.guestText}`);
  }

  onGuest(guest: PagedGuest, pageCount: number): void {
    this.#view?.showMemory(() => guest.pagesBrought(), pageCount);
  }

  onStep(stage: Stage, step: DemoStep, pageCount: number): void {
    const isNew = stage !== this.#stage;
    if (isNew) {
      this.#stage = stage;
      this.#stageBegan = performance.now();
      this.#view?.open(label(stage));
    }
    if (pageCount < PAGES_MIN) return;
    if (this.#view === undefined)
      this.#line(`${label(stage)}: ${STEP_TEXT[step]}, ${formatCount(pageCount)} pages`);
    else this.#view.step(STEP_TEXT[step], pageCount);
  }

  onProgress(pagesDone: number): void {
    this.#view?.progress(pagesDone);
  }

  onImage(image: Image, ms: number): void {
    const { pageCount, byteLength } = image;
    this.#finish(`${formatSize(byteLength)} built, ${formatCount(pageCount)} pages hashed`, ms, true);
  }

  onRestore(result: RestoreResult): void {
    const { firstByteMs, allMs, wrongPages } = result;
    const verdict = wrongPages === 0 ? "all pages right" : `${formatCount(wrongPages)} pages WRONG`;
    const text = `first byte after ${formatMs(firstByteMs)}, everything after ${formatMs(allMs)}, ${verdict}`;
    this.#finish(text, performance.now() - this.#stageBegan, wrongPages === 0);
  }

  /** Puts the terminal back as it was; at any moment. */
  close(): void {
    this.#view?.close();
  }

  #finish(text: string, ms: number, isGood: boolean): void {
    this.#view?.close();
    const mark = isGood ? this.#style.paint("green", "✔") : this.#style.paint("red", "✘");
    const took = this.#style.paint("dim", `(${formatMs(ms)})`);
    this.#line(`  ${mark} ${label(this.#stage ?? "image").padEnd(LABEL_WIDTH - 1)}${text} ${took}`);
  }

  #line(text: string): void {
    this.#stream.write(`${plain(text, this.#style)}\n`);
  }
}

function label(stage: Stage): string {
  return stage.replaceAll("-", " ");
}
