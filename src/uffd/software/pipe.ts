// A pipe: bytes from one end to the other, at most 64 KiB under way.

import { ERRNO } from "../../abi/errno.ts";
import { O, POLL } from "../../abi/memory.ts";
import { OpenFile } from "./open-file.ts";
import { type Blocking, SLEEP } from "./scheduler.ts";
import { RESTART, type SoftwareThread } from "./thread.ts";
import type { UserVector } from "./user-vector.ts";
import { WaitQueue } from "./wait-queue.ts";

const CAPACITY = 65536;
const SIGPIPE = 13;

/** What both ends share. */
class Channel {
  readonly changes = new WaitQueue();
  readonly chunks: Uint8Array[] = [];
  size = 0;
  readers = 1;
  writers = 1;
}

abstract class PipeEnd extends OpenFile {
  protected readonly channel: Channel;

  constructor(channel: Channel, flags: number) {
    super(flags);
    this.channel = channel;
  }

  override get changes(): WaitQueue {
    return this.channel.changes;
  }

  /** Waits for the other end to do something: undefined, or why not. */
  protected *wait(thread: SoftwareThread): Blocking<number | undefined> {
    if ((this.flags & O.NONBLOCK) !== 0) return -ERRNO.EAGAIN;
    if (thread.signalled) return RESTART;
    this.changes.add(thread);
    try {
      yield SLEEP.INTERRUPTIBLE;
    } finally {
      this.changes.delete(thread);
    }
    return undefined;
  }
}

class ReadEnd extends PipeEnd {
  protected override closed(): void {
    this.channel.readers--;
    this.channel.changes.wakeAll();
  }

  override poll(): number {
    return (this.channel.size > 0 ? POLL.IN : 0) | (this.channel.writers === 0 ? POLL.HUP : 0);
  }

  override *read(thread: SoftwareThread, vector: UserVector): Blocking<number> {
    const { channel } = this;
    if (vector.remaining === 0) return 0;
    while (channel.size === 0) {
      if (channel.writers === 0) return 0;
      const stopped = yield* this.wait(thread);
      if (stopped !== undefined) return stopped;
    }
    let done = 0;
    while (vector.remaining > 0 && channel.chunks.length > 0) {
      const chunk = channel.chunks[0]!;
      const wanted = chunk.subarray(0, Math.min(chunk.length, vector.remaining));
      const put = yield* vector.put(thread, wanted);
      done += put;
      channel.size -= put;
      if (put === chunk.length) channel.chunks.shift();
      else channel.chunks[0] = chunk.subarray(put);
      channel.changes.wakeAll();
      if (put < wanted.length) return done > 0 ? done : -ERRNO.EFAULT;
    }
    return done;
  }
}

class WriteEnd extends PipeEnd {
  protected override closed(): void {
    this.channel.writers--;
    this.channel.changes.wakeAll();
  }

  override poll(): number {
    const room = CAPACITY - this.channel.size >= 4096 ? POLL.OUT : 0;
    return this.channel.readers === 0 ? room | POLL.ERR : room;
  }

  override *write(thread: SoftwareThread, vector: UserVector): Blocking<number> {
    const { channel } = this;
    let done = 0;
    while (vector.remaining > 0) {
      if (channel.readers === 0) {
        thread.process.signal(SIGPIPE, thread);
        return done > 0 ? done : -ERRNO.EPIPE;
      }
      const room = CAPACITY - channel.size;
      if (room === 0) {
        const stopped = yield* this.wait(thread);
        if (stopped !== undefined) return done > 0 ? done : stopped;
        continue;
      }
      const piece = new Uint8Array(Math.min(room, vector.remaining, 4096));
      const taken = yield* vector.take(thread, piece);
      if (taken > 0) {
        channel.chunks.push(piece.subarray(0, taken));
        channel.size += taken;
        done += taken;
        channel.changes.wakeAll();
      }
      if (taken < piece.length) return done > 0 ? done : -ERRNO.EFAULT;
    }
    return done;
  }
}

/** Both ends of a new pipe. */
export function makePipe(flags: number): { readonly read: OpenFile; readonly write: OpenFile } {
  const channel = new Channel();
  const status = flags & O.NONBLOCK;
  return {
    read: new ReadEnd(channel, O.RDONLY | status),
    write: new WriteEnd(channel, O.WRONLY | status),
  };
}
