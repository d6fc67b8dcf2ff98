// The part of the WebAssembly API that is used here: TypeScript has its types only together with a browser's.
// A `WebAssembly.Memory` is a `WasmMemory`, and so on.

export interface WasmMemory {
  readonly buffer: ArrayBufferLike;
  /** By pages of 64 KiB. Throws a RangeError beyond the maximum. */
  grow(pages: number): number;
}

export interface WasmGlobal {
  value: unknown;
}

/** What an instance exports, by name. */
export type WasmExports = Readonly<Record<string, unknown>>;

const { WebAssembly: api } = globalThis as unknown as {
  readonly WebAssembly: { readonly Global: new (...args: never[]) => WasmGlobal };
};

export function isWasmGlobal(value: unknown): value is WasmGlobal {
  return value instanceof api.Global;
}
