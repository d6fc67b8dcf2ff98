// What surrounds the source of a post-copy migration in its tests: a destination that is one in all but its socket, an image,
// what is on its way between them, and what may happen next.

import assert from "node:assert/strict";
import type { MinorfaultError } from "../../src/base/errors.ts";
import { Random } from "../../src/base/random.ts";
import {
  encodeReturnMessage,
  type ReturnMessage,
  ReturnPathReader,
  type SourceAction,
  type SourceBlock,
  SourceMachine,
  type SourceMachineOptions,
  StreamWriter,
} from "../../src/guest/qemu/index.ts";
import { RECORD_BYTES, writeRecord } from "../../src/guest/qemu/page-records.ts";
import { sparseBytes } from "../image/content.ts";
import { Destination } from "./destination.ts";
import { isZero, PAGE, SECTION_ID } from "./streams.ts";

export const HUGE = 2 ** 21;
export const DEVICES = Buffer.from("\x04 the state of all devices");

export interface Scene {
  readonly blocks: readonly SourceBlock[];
  readonly memory: readonly Uint8Array[];
}

export function randomScene(random: Random): Scene {
  let firstPage = random.below(50);
  const memory: Uint8Array[] = [];
  const blocks = Array.from({ length: 1 + random.below(4) }, (_, index) => {
    const pageSize = random.below(4) === 0 ? HUGE : PAGE;
    const byteLength = pageSize === HUGE ? HUGE * (1 + random.below(2)) : PAGE * (1 + random.below(300));
    const block = { name: `block${index}`, byteLength, pageSize, firstPage };
    firstPage += byteLength / PAGE + random.below(40);
    memory.push(sparseBytes(random, byteLength));
    return block;
  });
  return { blocks, memory };
}

/** Pages of a block as the threads of a pool make them. */
function recordsOf(block: SourceBlock, first: number, bytes: Uint8Array): Uint8Array {
  const count = bytes.byteLength / PAGE;
  const records = new Uint8Array(count * RECORD_BYTES);
  for (let index = 0; index < count; index++) {
    const page = bytes.subarray(index * PAGE, (index + 1) * PAGE);
    writeRecord(records, index * RECORD_BYTES, first - block.firstPage + index, page);
  }
  return records;
}

type Want = SourceAction & { readonly kind: "want" };

/** Everything around the machine: what is on its way, and what may happen next. */
export class World {
  readonly machine: SourceMachine;
  readonly destination: Destination;
  readonly scene: Scene;
  readonly random: Random;
  readonly states: string[] = [];
  readonly touched: number[] = [];
  error: MinorfaultError | undefined;
  now = 0;
  /** Of a hundred things that are wanted of the image, so many cannot be had at once. */
  damage = 0;
  #wants: Want[] = [];
  /** Those that could not be had. */
  #withheld: Want[] = [];
  #toDestination: Uint8Array[] = [];
  #toSource = new ReturnPathReader();
  #isConnected = false;
  #requestedBlock = -1;

  constructor(random: Random, scene: Scene, options: Partial<SourceMachineOptions> = {}) {
    this.random = random;
    this.scene = scene;
    this.machine = new SourceMachine({
      devices: DEVICES,
      configuration: new StreamWriter().configuration("pc").take(),
      sectionId: SECTION_ID,
      blocks: scene.blocks,
      now: () => this.now,
      ...options,
    });
    this.destination = new Destination(scene.blocks, DEVICES);
  }

  do(actions: readonly SourceAction[]): void {
    for (const action of actions) {
      if (action.kind === "send") this.#toDestination.push(action.bytes);
      else if (action.kind === "want") this.#wants.push(action);
      else if (action.kind === "state") this.states.push(action.state);
      else if (action.kind === "touched") this.touched.push(action.first);
      else this.error = action.error;
    }
  }

  connect(): void {
    this.#isConnected = true;
    this.#toSource = new ReturnPathReader();
    this.#requestedBlock = -1;
    this.do(this.machine.connected());
  }

  /** Cuts the connection, in the middle of whatever is on its way. */
  lose(): void {
    const left = Buffer.concat(this.#toDestination);
    this.#toDestination = [];
    this.destination.receive(left.subarray(0, this.random.below(left.byteLength + 1)));
    // Once the end has come, nothing is lost any more.
    if (this.destination.isEnded) {
      this.#answer();
      return;
    }
    this.#isConnected = false;
    this.destination.reconnect();
    this.do(this.machine.lost());
  }

  get isConnected(): boolean {
    return this.#isConnected;
  }

  /** Pages that are known to be needed. */
  prefetch(share: number): void {
    for (const block of this.scene.blocks) {
      for (let page = block.firstPage; page < block.firstPage + block.byteLength / PAGE; page++) {
        if (this.random.below(100) < share) this.#give(page, 1);
      }
    }
  }

  /** One thing that may happen, happens. */
  step(): void {
    this.now += this.random.below(3);
    switch (this.random.below(6)) {
      case 0:
        this.#supply();
        break;
      case 1:
        this.deliver();
        break;
      case 2:
        this.#answer();
        break;
      case 3:
        this.#fault();
        break;
      case 4:
        this.do(this.machine.tick());
        break;
      case 5:
        this.#supply();
        this.deliver();
    }
  }

  /** Of these pages nothing that was wanted comes. */
  deny(first: number, count: number): void {
    this.#wants = this.#wants.filter(
      (want) => want.first + want.count <= first || want.first >= first + count,
    );
  }

  /** What could not be had can. */
  mend(): void {
    this.#wants.push(...this.#withheld.splice(0));
  }

  /** Everything that is on its way arrives. */
  settle(): void {
    for (let rounds = 0; rounds < 10_000; rounds++) {
      if (this.machine.state === "completed" || this.error !== undefined) return;
      this.mend();
      this.#supply();
      this.deliver();
      this.#answer();
      this.now += 1;
      this.do(this.machine.tick());
    }
  }

  get waitingWants(): number {
    return this.#wants.length;
  }

  /** Sends a message as the destination. */
  say(message: ReturnMessage): void {
    this.#toSource.push(encodeReturnMessage(message));
    this.#listen();
  }

  /** All that the image is asked for, and that everybody sends, arrives; of this world's things nothing is mended. */
  run(): void {
    while (this.#wants.length > 0 || this.#toDestination.length > 0) {
      this.#supply();
      this.deliver();
      this.#answer();
    }
  }

  deliver(): void {
    const bytes = this.#toDestination.shift();
    if (bytes === undefined) return;
    this.destination.receive(bytes);
    this.do(this.machine.written(bytes.byteLength));
  }

  #answer(): void {
    if (!this.#isConnected) return;
    this.#toSource.push(this.destination.takeAnswers());
    this.#listen();
  }

  #listen(): void {
    for (let message = this.#toSource.read(); message !== undefined; message = this.#toSource.read()) {
      this.do(this.machine.message(message));
    }
  }

  /** A guest touches a page that is not there. */
  #fault(): void {
    if (!this.#isConnected || !this.destination.isRunning || this.machine.state !== "running") return;
    const missing = this.destination.missing();
    const page = missing[this.random.below(missing.length)];
    if (page === undefined) return;
    this.destination.answers.push(
      this.destination.request(page.block, page.page, page.block === this.#requestedBlock),
    );
    this.#requestedBlock = page.block;
  }

  /** The image gives something that was wanted: requests first, as whoever serves must. */
  #supply(): void {
    const index = this.#wants.findIndex(({ urgency }) => urgency === "request");
    const [want] = this.#wants.splice(index === -1 ? this.random.below(this.#wants.length + 1) : index, 1);
    if (want === undefined) return;
    if (this.random.below(100) < this.damage) {
      this.#withheld.push(want);
      this.do(this.machine.withhold(want.first, want.count));
      return;
    }
    // In pieces, and now and then with neighbours that nobody asked for.
    for (let page = want.first; page < want.first + want.count; ) {
      const count = Math.min(want.first + want.count - page, 1 + this.random.below(200));
      this.#give(page, count);
      page += count;
    }
    if (this.random.below(4) === 0) this.#give(want.first, 1);
  }

  #give(first: number, count: number): void {
    const index = this.scene.blocks.findIndex(
      ({ firstPage, byteLength }) => first >= firstPage && first < firstPage + byteLength / PAGE,
    );
    const block = this.scene.blocks[index]!;
    const start = (first - block.firstPage) * PAGE;
    const bytes = this.scene.memory[index]!.subarray(start, start + count * PAGE);
    if (isZero(bytes)) this.do(this.machine.zeros(first, count));
    else if (this.random.below(2) === 0 || block.pageSize !== PAGE) this.do(this.machine.pages(first, bytes));
    else
      this.do(
        this.machine.place({ first, count, bytes: recordsOf(block, first, bytes), stride: RECORD_BYTES }),
      );
  }
}

export function codeOf({ error }: World): string | undefined {
  return error?.code;
}

export function small(): Scene {
  const blocks = [
    { name: "pc.ram", byteLength: 64 * PAGE, pageSize: PAGE, firstPage: 16 },
    { name: "huge", byteLength: 2 * HUGE, pageSize: HUGE, firstPage: 512 },
  ];
  return { blocks, memory: blocks.map(({ byteLength }) => new Uint8Array(byteLength).fill(7)) };
}

/** A machine that runs, and pushes nothing. */
export function running(options: Partial<SourceMachineOptions> = {}): World {
  const world = new World(new Random(1), small(), { push: false, ...options });
  world.connect();
  world.do(world.machine.start());
  world.say({ kind: "pong", value: 3 });
  assert.equal(world.machine.state, "running");
  return world;
}
