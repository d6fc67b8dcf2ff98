// What becomes of errors that nobody asked to be told of.

import type { MinorfaultError } from "../../base/errors.ts";

export function warn(error: MinorfaultError): void {
  process.emitWarning(`${error.message}. ${error.hint}`, { code: error.code, type: "MinorfaultWarning" });
}
