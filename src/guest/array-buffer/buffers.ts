// The ArrayBuffers of a lazy memory: made when they are first asked for, and kept from leaving their thread.
//
// Whoever transfers or detaches a buffer takes its bytes along and leaves an empty one behind; here the bytes belong to the
// range, so that can't be. `markAsUntransferable` makes Node copy instead (20) or refuse (22); `transfer()` of newer V8
// knows nothing of that and is refused by the buffer itself.
//
// Node 24 marks by a detach key, and crashes at its end when it can't detach a buffer of native code without it: there
// buffers are not marked, may move, and the range's addresses stay reserved for good (addresses, no memory).

import { markAsUntransferable } from "node:worker_threads";
import { MinorfaultError } from "../../base/errors.ts";
import { type AddressRange, BUFFER_BYTES_MAX } from "../../linux/index.ts";
import { checkWithin } from "./ranges.ts";

let keyed: boolean | undefined;

export class Buffers {
  readonly byteLength: number;
  readonly #range: AddressRange;
  #whole: ArrayBuffer | undefined;

  /** `byteLength` bytes at the start of the range are content. */
  constructor(range: AddressRange, byteLength: number) {
    this.#range = range;
    this.byteLength = byteLength;
  }

  get whole(): ArrayBuffer {
    // Detached: somebody has transferred it, where that can't be prevented.
    if (this.#whole === undefined || this.#whole.byteLength === 0) {
      this.#checkWhole();
      this.#whole = this.#view(0, this.byteLength);
    }
    return this.#whole;
  }

  window(offset: number, byteLength: number): ArrayBuffer {
    checkWithin(offset, byteLength, this.byteLength);
    return this.#view(offset, byteLength);
  }

  #view(offset: number, byteLength: number): ArrayBuffer {
    keyed ??= marksByDetachKey();
    const buffer = this.#range.view(offset, byteLength, keyed);
    if (!keyed) markAsUntransferable(buffer);
    refuseTransfer(buffer);
    return buffer;
  }

  #checkWhole(): void {
    if (this.byteLength <= BUFFER_BYTES_MAX) return;
    throw new MinorfaultError(
      "ERR_OUT_OF_RANGE",
      `This memory has ${this.byteLength} bytes, an ArrayBuffer of Node ${process.versions.node} at most ${BUFFER_BYTES_MAX}`,
      {
        byteLength: this.byteLength,
        hint: "Use window(offset, byteLength) for parts of it, or Node 22 or later",
      },
    );
  }
}

/** Whether marking a buffer gives it a detach key. */
function marksByDetachKey(): boolean {
  const buffer = new ArrayBuffer(8) as ArrayBuffer & { transfer?(): ArrayBuffer };
  markAsUntransferable(buffer);
  try {
    buffer.transfer?.();
    return false;
  } catch {
    return true;
  }
}

function refuseTransfer(buffer: ArrayBuffer): void {
  for (const name of ["transfer", "transferToFixedLength"]) {
    if (!(name in buffer)) continue;
    Object.defineProperty(buffer, name, {
      value: () => {
        throw new MinorfaultError("ERR_BAD_ARGUMENT", "The buffer of a lazy memory can't be transferred", {
          hint: "Use share() and attach() for another thread, slice() for a copy",
        });
      },
    });
  }
}
