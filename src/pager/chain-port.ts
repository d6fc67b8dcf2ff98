// The port of a real userfaultfd in this process: fill and read in one step, stamped by the CPU's own counter.

import { RWF } from "../abi/memory.ts";
import { UFFD_MSG_SIZE } from "../abi/message.ts";
import type { Scratch } from "../abi/system.ts";
import { UFFDIO } from "../abi/userfaultfd.ts";
import {
  chainsWork,
  local,
  type Memory,
  type MovableChains,
  makeChain,
  makeMovableChains,
  putCalls,
} from "../linux/index.ts";
import { copyList } from "./copy-list.ts";
import { giveMemory, takeMemory } from "./memory-pool.ts";
import { CallerPort, type FaultPort, layPort, PORT, PORT_BYTES, WORD, wordsOf } from "./port.ts";

/** Long enough to know the counter's speed to a thousandth, short enough for a start. */
const CALIBRATION_MS = 2;

export interface PortOptions {
  /** Where messages come from, if not from the userfaultfd. */
  readonly readFd?: number;
  /**
   * Reads never wait, whatever the descriptor says: who else has it may change that at any time, and one guest is not to
   * keep the thread of many. Where chains work, and the system can.
   */
  readonly neverWaits?: boolean;
  /** A page for the port, where it is not to have one of its own. */
  readonly memory?: Scratch | undefined;
}

/** The fastest port that this host allows. */
export function openPort(fd: number, options: PortOptions = {}): FaultPort {
  const { readFd = fd, memory } = options;
  if (chainsWork()) {
    try {
      return new ChainPort(fd, options);
    } catch {
      // Memory that may not become executable (some hardened hosts): one call after the other, then.
    }
  }
  return new CallerPort(local, fd, () => performance.now(), readFd, memory);
}

/** The code of all ports of this thread, and the port whose memory it goes through. */
let chains: MovableChains | undefined;
let selected: ChainPort | undefined;

class ChainPort implements FaultPort {
  readonly fd: number;
  readonly copies = copyList();
  readonly words: Int32Array;
  readonly memory: Scratch;
  readonly nanosecondsPerTick: number;
  readonly #readFd: number;
  readonly #own: Memory | undefined;
  readonly #chains: MovableChains;
  readonly #turn: () => void;
  readonly #fill: () => void;
  readonly #read: () => void;

  constructor(fd: number, { readFd = fd, memory, neverWaits = false }: PortOptions) {
    this.fd = fd;
    this.#readFd = readFd;
    chains ??= makeMovableChains(local, [
      { at: PORT.FILL, count: 2, sixth: RWF.NOWAIT },
      { at: PORT.FILL, count: 1 },
      { at: PORT.READ, count: 1, sixth: RWF.NOWAIT },
    ]);
    this.#chains = chains;
    [this.#turn, this.#fill, this.#read] = chains.run as [() => void, () => void, () => void];
    this.nanosecondsPerTick = nanosecondsPerTick();
    this.#own = memory === undefined ? takeMemory(PORT_BYTES) : undefined;
    this.memory = memory ?? this.#own!;
    this.words = wordsOf(this.memory);
    layPort(this.memory, fd);
    const { address } = this.memory;
    putCalls(this.memory, PORT.FILL, [{ name: "ioctl", args: [fd, UFFDIO.COPY, address + PORT.COPY] }]);
    // A file position of -1: as read(2).
    const place = [readFd, address + PORT.PLACE, 1, -1, 0];
    if (neverWaits) putCalls(this.memory, PORT.READ, [{ name: "preadv2", args: place }]);
    else this.readPlainly();
  }

  fill(): void {
    if (selected !== this) this.#select();
    this.#fill();
  }

  read(): void {
    if (selected !== this) this.#select();
    this.#read();
  }

  turn(): void {
    if (selected !== this) this.#select();
    this.#turn();
  }

  readPlainly(): void {
    const args = [this.#readFd, this.memory.address + PORT.MESSAGE, UFFD_MSG_SIZE];
    putCalls(this.memory, PORT.READ, [{ name: "read", args }]);
  }

  close(): void {
    if (selected === this) selected = undefined;
    if (this.#own !== undefined) giveMemory(this.#own, PORT_BYTES);
  }

  #select(): void {
    this.#chains.select(this.memory.address);
    selected = this;
  }
}

let calibrated: number | undefined;

function nanosecondsPerTick(): number {
  calibrated ??= calibrate();
  return calibrated;
}

function calibrate(): number {
  const memory = local.share(4096);
  const sample = makeChain(local, memory, PORT.READ, [{ name: "getpid", args: [] }]);
  const words = wordsOf(memory);
  const ticks = (): number => {
    sample();
    return words[WORD.READ_STAMP + 1]! * 2 ** 32 + (words[WORD.READ_STAMP]! >>> 0);
  };
  const [ticksBefore, before] = [ticks(), performance.now()];
  while (performance.now() - before < CALIBRATION_MS) {
    // The clock runs.
  }
  const [ticksAfter, after] = [ticks(), performance.now()];
  memory.close();
  return ((after - before) * 1e6) / (ticksAfter - ticksBefore);
}
