// Where a pager takes its bytes from: memory that is addressable in its own process.
//
// Sources that have to go somewhere for their bytes will put them into such memory first. `addressOf` may throw:
// then the page is poisoned, the owner is told, and the pager goes on.

export interface AddressableSource {
  readonly byteLength: number;
  /** The address of [offset, offset + byteLength) of the image; valid until the fill that follows has ended. */
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
