// The ioctls of a userfaultfd as typed calls over a `Caller`: encode the struct, ask, decode the answer.
//
// Nothing is checked here and nothing is thrown: any 64 bits go through, and what the system says comes back
// as it was said. The conformance suite uses this layer to ask wrong things; users have `Userfaultfd`.

import { decodeMessage, UFFD_MSG_SIZE, type UffdMessage } from "../abi/message.ts";
import { readSigned, type Struct, uffdio, type Word } from "../abi/structs.ts";
import type { Caller } from "../abi/system.ts";
import { UFFD_API, UFFDIO } from "../abi/userfaultfd.ts";

/** The answer of an ioctl without an output field: 0 or a positive errno. */
export interface Answer {
  readonly errno: number;
}

/** The answer of a fill. `reported` is false when the system left the output field as it was. */
export interface FillAnswer extends Answer {
  /** Bytes done, 0 when the field holds an errno or was left alone. */
  readonly bytes: number;
  readonly reported: boolean;
}

export interface ApiAnswer extends Answer {
  /** The struct as the system left it. */
  readonly api: bigint;
  readonly features: bigint;
  readonly ioctls: bigint;
}

export interface RegisterAnswer extends Answer {
  /** Ioctls that work in the range; undefined when the system left the field as it was. */
  readonly ioctls: bigint | undefined;
}

// What stands in an output field before the call: no system answers it, so finding it means "left alone".
const UNTOUCHED = 0x5aa5_5aa5_5aa5_5aa5n;
const UNTOUCHED_LOW = 0x5aa5_5aa5;

/** Bytes at the start of a caller's scratch memory that hold the struct of one ioctl; messages stand behind them. */
const STRUCT_BYTES = 128;

export class Ioctls {
  readonly fd: number;
  readonly #caller: Caller;
  readonly #at: number;

  /** `at` is where in the caller's scratch memory the structs are put: 128 bytes for them, then messages. */
  constructor(caller: Caller, fd: number, at = 0) {
    this.#caller = caller;
    this.fd = fd;
    this.#at = at;
  }

  api(features: Word, api: Word = UFFD_API): ApiAnswer {
    const { errno, fields } = this.#call(UFFDIO.API, uffdio.api, { api, features, ioctls: 0 });
    return { errno, ...fields };
  }

  register(start: Word, len: Word, mode: Word): RegisterAnswer {
    const values = { start, len, mode, ioctls: UNTOUCHED };
    const { errno, fields } = this.#call(UFFDIO.REGISTER, uffdio.register, values);
    return { errno, ioctls: fields.ioctls === UNTOUCHED ? undefined : fields.ioctls };
  }

  unregister(start: Word, len: Word): Answer {
    return this.#plain(UFFDIO.UNREGISTER, uffdio.range, { start, len });
  }

  wake(start: Word, len: Word): Answer {
    return this.#plain(UFFDIO.WAKE, uffdio.range, { start, len });
  }

  copy(dst: Word, src: Word, len: Word, mode: Word): FillAnswer {
    return this.#fill(UFFDIO.COPY, uffdio.copy, { dst, src, len, mode, copy: UNTOUCHED });
  }

  zeropage(start: Word, len: Word, mode: Word): FillAnswer {
    return this.#fill(UFFDIO.ZEROPAGE, uffdio.zeropage, { start, len, mode, zeropage: UNTOUCHED });
  }

  writeprotect(start: Word, len: Word, mode: Word): Answer {
    return this.#plain(UFFDIO.WRITEPROTECT, uffdio.writeprotect, { start, len, mode });
  }

  continue(start: Word, len: Word, mode: Word): FillAnswer {
    return this.#fill(UFFDIO.CONTINUE, uffdio.continue, { start, len, mode, mapped: UNTOUCHED });
  }

  poison(start: Word, len: Word, mode: Word): FillAnswer {
    return this.#fill(UFFDIO.POISON, uffdio.poison, { start, len, mode, updated: UNTOUCHED });
  }

  move(dst: Word, src: Word, len: Word, mode: Word): FillAnswer {
    return this.#fill(UFFDIO.MOVE, uffdio.move, { dst, src, len, mode, move: UNTOUCHED });
  }

  /** read(2) of at most `messagesMax` messages: the messages, or a positive errno. */
  read(messagesMax: number): { readonly errno: number; readonly messages: UffdMessage[] } {
    const { scratch } = this.#caller;
    const at = this.#at + STRUCT_BYTES;
    const length = this.#caller.read(this.fd, scratch.address + at, messagesMax * UFFD_MSG_SIZE);
    const messages: UffdMessage[] = [];
    for (let offset = 0; offset < length; offset += UFFD_MSG_SIZE) {
      const message = decodeMessage(scratch.view, at + offset);
      // An event newer than this header can't be acted on; its originator is released by the read itself.
      if (message !== undefined) messages.push(message);
    }
    return { errno: length < 0 ? -length : 0, messages };
  }

  #fill<F extends string>(request: number, struct: Struct<F>, values: Record<F, Word>): FillAnswer {
    const { scratch } = this.#caller;
    struct.write(scratch.view, this.#at, values);
    const result = this.#caller.ioctl(this.fd, request, scratch.address + this.#at);
    // The output field is the last one of every fill.
    const field = this.#at + struct.size - 8;
    const low = scratch.view.getUint32(field, true);
    const reported = low !== UNTOUCHED_LOW || scratch.view.getBigUint64(field, true) !== UNTOUCHED;
    const done = reported ? readSigned(scratch.view, field) : 0;
    return { errno: result < 0 ? -result : 0, bytes: Math.max(0, done), reported };
  }

  #plain<F extends string>(request: number, struct: Struct<F>, values: Record<F, Word>): Answer {
    const { scratch } = this.#caller;
    struct.write(scratch.view, this.#at, values);
    const result = this.#caller.ioctl(this.fd, request, scratch.address + this.#at);
    return { errno: result < 0 ? -result : 0 };
  }

  #call<F extends string>(
    request: number,
    struct: Struct<F>,
    values: Record<F, Word>,
  ): Answer & { readonly fields: Record<F, bigint> } {
    const { errno } = this.#plain(request, struct, values);
    return { errno, fields: struct.read(this.#caller.scratch.view, this.#at) };
  }
}
