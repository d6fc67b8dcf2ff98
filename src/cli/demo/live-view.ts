// What moves on a terminal: a bar for the present step, and under it the guest's memory as it is being filled.
//
//     page by page   ████████████░░░░░░░░░░░░ touching everything
//                    ████████████████████▓░░░░░░░░░░·░░░░░░░░░░░░░░░░░░░░·░░░░░░
//                    ░░░░░░░░░░░░░░░░░░░░░░░░░·░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░

import { MultiBar, type SingleBar } from "cli-progress";
import { drawShares, residencyOfBits } from "./residency-map.ts";
import { plain, type Style } from "./style.ts";

const BAR_WIDTH = 24;
const LABEL_WIDTH = 15;
const MAP_ROWS = 4;
const MAP_COLUMNS = 60;
const FRAMES_PER_SECOND = 20;

export class LiveView {
  readonly #stream: NodeJS.WriteStream;
  readonly #style: Style;
  #bars: MultiBar | undefined;
  #bar: SingleBar | undefined;
  #rows: SingleBar[] = [];
  #label = "";
  #look: (() => number[]) | undefined;
  #drawnAt = 0;

  constructor(stream: NodeJS.WriteStream, style: Style) {
    this.#stream = stream;
    this.#style = style;
  }

  /** Begins a stage. */
  open(label: string): void {
    this.close();
    this.#label = label;
    this.#bars = new MultiBar({
      stream: this.#stream,
      barsize: BAR_WIDTH,
      barCompleteChar: plain("█", this.#style),
      barIncompleteChar: plain("░", this.#style),
      hideCursor: true,
      clearOnComplete: true,
      fps: FRAMES_PER_SECOND,
      // We end by ourselves on signals, and put the cursor back.
      gracefulExit: false,
    });
  }

  /** From now on the stage shows this memory: one bit a page. */
  showMemory(look: () => Uint32Array, pageCount: number): void {
    this.#look = () => residencyOfBits(look(), pageCount, MAP_ROWS * MAP_COLUMNS);
  }

  step(text: string, total: number): void {
    const payload = { label: this.#label.padEnd(LABEL_WIDTH), text };
    if (this.#bar === undefined) {
      this.#bar = this.#bars?.create(total, 0, payload, { format: "  {label}{bar} {text}" });
    } else {
      this.#bar.setTotal(total);
      this.#bar.update(0, payload);
    }
    this.#drawMemory();
  }

  progress(done: number): void {
    this.#bar?.update(done);
    if (performance.now() - this.#drawnAt > 1000 / FRAMES_PER_SECOND) this.#drawMemory();
  }

  /** Takes everything off the screen again. */
  close(): void {
    // What was never drawn can't be taken off.
    if (this.#bar !== undefined) {
      this.#bars?.update();
      this.#bars?.stop();
    }
    this.#bars = undefined;
    this.#bar = undefined;
    this.#rows = [];
    this.#look = undefined;
  }

  #drawMemory(): void {
    this.#drawnAt = performance.now();
    const shares = this.#look?.();
    if (shares === undefined) return;
    const indent = " ".repeat(2 + LABEL_WIDTH);
    for (let row = 0; row < MAP_ROWS; row++) {
      const cells = shares.slice(row * MAP_COLUMNS, (row + 1) * MAP_COLUMNS);
      const line = indent + plain(drawShares(cells, this.#style), this.#style);
      this.#rows[row]?.update(0, { line });
      this.#rows[row] ??= this.#bars!.create(1, 0, { line }, { format: "{line}" });
    }
  }
}
