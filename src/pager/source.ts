// Where a pager takes its bytes from: memory that is addressable in its own process.
//
// Sources that have to go somewhere for their bytes put them into such memory first (src/pager/fetch), and answer AWAY
// until they have. `addressOf` may throw: then the page is poisoned, the owner is told, and the pager goes on.

/** The answer of `addressOf` while the bytes are somewhere else. */
export const AWAY = -2;

export interface AddressableSource {
  readonly byteLength: number;
  /** How many bytes from `offset` on lie in one piece with it; absent where all do. */
  reach?(offset: number): number;
  /** How many bytes before `offset` lie in one piece with it; there with `reach`. */
  reachBack?(offset: number): number;
  /** Something is there that nobody has asked for yet: installed now it saves the faults that would. Who pumps comes back. */
  readonly hasAhead?: boolean;
  /** The address of [offset, offset + byteLength) of the image, or AWAY; valid until the fill that follows has ended. */
  addressOf(offset: number, byteLength: number): number;
}

/** An image that lies at an address in one piece. */
export class MemorySource implements AddressableSource {
  readonly byteLength: number;
  readonly #address: number;

  constructor(address: number, byteLength: number) {
    this.#address = address;
    this.byteLength = byteLength;
  }

  addressOf(offset: number): number {
    return this.#address + offset;
  }
}
