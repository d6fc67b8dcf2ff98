// A small WebAssembly module, as bytes: a memory, and functions that load and store 32 bits and sum over a range.
//
//   (module (memory (export "memory") 2 65536)
//     (global (export "top") (mut i32) (i32.const 7))
//     (func (export "load") (param i32) (result i32) ...)
//     (func (export "store") (param i32 i32) ...)
//     (func (export "sum") (param $from i32) (param $until i32) (param $step i32) (result i32) ...)
//     (data (i32.const 16) "module"))

type Bytes = readonly number[];
const I32 = 0x7f;

function leb(value: number): number[] {
  const low = value & 0x7f;
  const rest = value >>> 7;
  return rest === 0 ? [low] : [low | 0x80, ...leb(rest)];
}
const vector = (items: readonly Bytes[]): number[] => [...leb(items.length), ...items.flat()];
const section = (id: number, content: Bytes): number[] => [id, ...leb(content.length), ...content];
const name = (text: string): number[] => [...leb(text.length), ...new TextEncoder().encode(text)];
const type = (parameters: number, results: number): number[] => [
  0x60,
  ...vector(new Array(parameters).fill([I32])),
  ...vector(new Array(results).fill([I32])),
];
const body = (locals: number, code: Bytes): number[] => {
  const content = [...(locals === 0 ? [0] : [1, locals, I32]), ...code, 0x0b];
  return [...leb(content.length), ...content];
};
const get = (local: number): number[] => [0x20, local];
const set = (local: number): number[] => [0x21, local];
const LOAD = [0x28, 2, 0];
const STORE = [0x36, 2, 0];
const ADD = 0x6a;
const LESS = 0x49;

/** The module's bytes; `pages` is what its memory has at first. */
export function moduleBytes(pages = 2): Uint8Array<ArrayBuffer> {
  const sum = [
    ...[0x03, 0x40], // loop
    ...get(3),
    ...[...get(0), ...LOAD, ADD, ...set(3)],
    ...[...get(0), ...get(2), ADD, ...set(0)],
    ...[...get(0), ...get(1), LESS, 0x0d, 0], // again while from < until
    0x0b,
    ...get(3),
  ];
  const data = new TextEncoder().encode("module");
  return new Uint8Array([
    ...[0x00, 0x61, 0x73, 0x6d, 1, 0, 0, 0],
    ...section(1, vector([type(1, 1), type(2, 0), type(3, 1)])),
    ...section(3, vector([[0], [1], [2]])),
    ...section(5, vector([[1, ...leb(pages), ...leb(65536)]])),
    ...section(6, vector([[I32, 1, 0x41, 7, 0x0b]])),
    ...section(
      7,
      vector([
        [...name("memory"), 2, 0],
        [...name("top"), 3, 0],
        [...name("load"), 0, 0],
        [...name("store"), 0, 1],
        [...name("sum"), 0, 2],
      ]),
    ),
    ...section(
      10,
      vector([body(0, [...get(0), ...LOAD]), body(0, [...get(0), ...get(1), ...STORE]), body(1, sum)]),
    ),
    ...section(11, vector([[0, 0x41, 16, 0x0b, ...leb(data.length), ...data]])),
  ]);
}

export interface Instance {
  readonly memory: { readonly buffer: ArrayBuffer; grow(pages: number): number };
  readonly top: { value: number };
  load(at: number): number;
  store(at: number, value: number): void;
  sum(from: number, until: number, step: number): number;
}

interface WebAssemblyApi {
  readonly Module: new (bytes: Uint8Array) => object;
  readonly Instance: new (module: object) => { readonly exports: Instance };
  readonly Memory: new (options: {
    initial: number;
    maximum: number;
    shared?: boolean;
  }) => { readonly buffer: SharedArrayBuffer; grow(pages: number): number };
}

export const webAssembly: WebAssemblyApi = (globalThis as unknown as { WebAssembly: WebAssemblyApi })
  .WebAssembly;

export function instantiate(pages?: number): Instance {
  return new webAssembly.Instance(new webAssembly.Module(moduleBytes(pages))).exports;
}
