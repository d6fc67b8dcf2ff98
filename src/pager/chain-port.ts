// The port of a real userfaultfd in this process: fill and read in one step, stamped by the CPU's own counter.

import { UFFD_MSG_SIZE } from "../abi/message.ts";
import type { Scratch } from "../abi/system.ts";
import { UFFDIO } from "../abi/userfaultfd.ts";
import { chainsWork, local, makeChain } from "../linux/index.ts";
import { CallerPort, type FaultPort, layPort, PORT, WORD, wordsOf } from "./port.ts";

/** Long enough to know the counter's speed to a thousandth, short enough for a start. */
const CALIBRATION_MS = 2;

/** The fastest port that this host allows; `readFd` is where messages come from, if not from the userfaultfd. */
export function openPort(fd: number, readFd: number = fd): FaultPort {
  if (chainsWork()) {
    try {
      return new ChainPort(fd, readFd);
    } catch {
      // Memory that may not become executable (some hardened hosts): one call after the other, then.
    }
  }
  return new CallerPort(local, fd, () => performance.now(), readFd);
}

class ChainPort implements FaultPort {
  readonly fd: number;
  readonly words: Int32Array;
  readonly memory: Scratch;
  readonly nanosecondsPerTick: number;
  readonly fill: () => void;
  readonly read: () => void;
  readonly turn: () => void;
  readonly #share: Scratch & { close(): void };

  constructor(fd: number, readFd: number) {
    this.fd = fd;
    this.#share = layPort(local, fd);
    this.memory = this.#share;
    this.words = wordsOf(this.#share);
    const { address } = this.#share;
    const fill = { name: "ioctl", args: [fd, UFFDIO.COPY, address + PORT.COPY] } as const;
    const read = { name: "read", args: [readFd, address + PORT.MESSAGE, UFFD_MSG_SIZE] } as const;
    this.turn = makeChain(local, this.#share, PORT.FILL, [fill, read]);
    this.fill = makeChain(local, this.#share, PORT.FILL, [fill]);
    this.read = makeChain(local, this.#share, PORT.READ, [read]);
    this.nanosecondsPerTick = nanosecondsPerTick();
  }

  close(): void {
    this.#share.close();
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
