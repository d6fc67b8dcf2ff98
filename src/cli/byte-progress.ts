// Progress over bytes on stderr: on a terminal a bar with rate and time left, elsewhere a line now and then.
//
//   hashing  ██████████░░░░░░░░░░ 52 %  532 MiB of 1 GiB  310 MiB/s  2 s left

import { Presets, SingleBar } from "cli-progress";
import { bytesText, msText } from "./bytes.ts";
import { plain, type Style, styleOf } from "./demo/style.ts";

export interface ByteProgress {
  update(progress: { readonly doneBytes: number; readonly totalBytes: number }): void;
  close(): void;
}

const LABEL_WIDTH = 10;
const FRAMES_PER_SECOND = 10;
const LINE_EVERY_MS = 5000;
/** The rate is that of the last seconds. */
const RATE_WINDOW_MS = 3000;

export const NO_PROGRESS: ByteProgress = { update() {}, close() {} };

export function byteProgress(label: string, stream: NodeJS.WriteStream = process.stderr): ByteProgress {
  const style = styleOf(stream);
  return stream.isTTY ? new Bar(label, stream, style) : new Lines(label, stream);
}

/** The rate over the last seconds, which says more about the time left than that since the beginning. */
class Rate {
  #samples: { readonly ms: number; readonly bytes: number }[] = [];

  /** Bytes a second, or undefined while there is too little to say. */
  add(bytes: number): number | undefined {
    const ms = performance.now();
    this.#samples.push({ ms, bytes });
    while (this.#samples.length > 2 && ms - this.#samples[0]!.ms > RATE_WINDOW_MS) this.#samples.shift();
    const first = this.#samples[0]!;
    return ms - first.ms < 200 ? undefined : ((bytes - first.bytes) * 1000) / (ms - first.ms);
  }
}

class Bar implements ByteProgress {
  readonly #bar: SingleBar;
  readonly #rate = new Rate();
  #started = false;

  constructor(label: string, stream: NodeJS.WriteStream, style: Style) {
    this.#bar = new SingleBar(
      {
        stream,
        format: `  ${label.padEnd(LABEL_WIDTH)}{bar} {percentage} %  {text}`,
        barsize: 24,
        barCompleteChar: plain("█", style),
        barIncompleteChar: plain("░", style),
        hideCursor: true,
        clearOnComplete: true,
        fps: FRAMES_PER_SECOND,
        gracefulExit: false,
      },
      Presets.shades_classic,
    );
  }

  update({ doneBytes, totalBytes }: { readonly doneBytes: number; readonly totalBytes: number }): void {
    const text = progressText(doneBytes, totalBytes, this.#rate.add(doneBytes));
    if (!this.#started) this.#bar.start(Math.max(totalBytes, 1), doneBytes, { text });
    this.#started = true;
    this.#bar.setTotal(Math.max(totalBytes, 1));
    this.#bar.update(doneBytes, { text });
  }

  close(): void {
    if (this.#started) this.#bar.stop();
  }
}

class Lines implements ByteProgress {
  readonly #label: string;
  readonly #stream: NodeJS.WriteStream;
  readonly #rate = new Rate();
  #toldAt = performance.now();

  constructor(label: string, stream: NodeJS.WriteStream) {
    this.#label = label;
    this.#stream = stream;
  }

  update({ doneBytes, totalBytes }: { readonly doneBytes: number; readonly totalBytes: number }): void {
    const rate = this.#rate.add(doneBytes);
    const now = performance.now();
    if (now - this.#toldAt < LINE_EVERY_MS) return;
    this.#toldAt = now;
    this.#stream.write(`${this.#label}: ${progressText(doneBytes, totalBytes, rate)}\n`);
  }

  close(): void {}
}

export function progressText(doneBytes: number, totalBytes: number, rate: number | undefined): string {
  const parts = [`${bytesText(doneBytes)} of ${bytesText(totalBytes)}`];
  if (rate !== undefined && rate > 0) {
    parts.push(`${bytesText(rate)}/s`, `${msText(((totalBytes - doneBytes) * 1000) / rate)} left`);
  }
  return parts.join("  ");
}
