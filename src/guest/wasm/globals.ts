// What an instance keeps outside its memory and its users can reach: exported globals that can be changed, such as a
// stack pointer. With them a snapshot of the memory is a snapshot of most modules.

import { MinorfaultError } from "../../base/errors.ts";
import { isWasmGlobal, type WasmExports, type WasmGlobal } from "./web-assembly.ts";

/** By export name; 64-bit ones are bigints. */
export type GlobalValues = Readonly<Record<string, number | bigint>>;

/** The values of all exported numeric globals that can be changed. */
export function readGlobals(exports: WasmExports): GlobalValues {
  const values: Record<string, number | bigint> = {};
  for (const [name, value] of Object.entries(exports)) {
    if (isWasmGlobal(value) && isChangeable(value)) values[name] = value.value as number | bigint;
  }
  return values;
}

/** Sets them in another instance of the same module. */
export function writeGlobals(exports: WasmExports, values: GlobalValues): void {
  for (const [name, value] of Object.entries(values)) {
    const target = exports[name];
    if (!isWasmGlobal(target)) {
      throw new MinorfaultError("ERR_BAD_ARGUMENT", `This instance exports no global named ${name}`);
    }
    target.value = value;
  }
}

function isChangeable(global: WasmGlobal): boolean {
  const { value } = global;
  if (typeof value !== "number" && typeof value !== "bigint") return false;
  try {
    global.value = value;
    return true;
  } catch {
    return false;
  }
}
