// Making folders. Node's own recursive mkdir never comes back where a parent can't have children, as in /proc: it takes
// the refusal for a parent that is missing, for ever.

import { lstatSync, mkdirSync } from "node:fs";
import { dirname } from "node:path";
import { MinorfaultError } from "../base/errors.ts";
import { syncFolder } from "./durable-file.ts";
import { fileCall, fileFailure } from "./file-failure.ts";

/**
 * Makes a folder and what lacks above it, all of this mode, and syncs those of their parents that can be read. Anything that is
 * there already stays.
 *
 * @throws ERR_SOURCE_MISSING, ERR_SOURCE_DENIED, ERR_STORE_PATH or ERR_SOURCE_FAILED with the folder that could not be made.
 */
export function makeFolder(path: string, mode = 0o777): void {
  if (fileCall("mkdir", path, () => lstatSync(path, { throwIfNoEntry: false })) !== undefined) return;
  const parent = dirname(path);
  if (parent !== path) makeFolder(parent, mode);
  try {
    mkdirSync(path, { mode });
  } catch (error) {
    const failure = fileFailure(error, "mkdir", path);
    if (!(failure instanceof MinorfaultError)) throw failure;
    // Somebody else was faster.
    if (failure.code === "ERR_STORE_EXISTS") return;
    throw new MinorfaultError(failure.code, failure.message, {
      cause: error,
      hint: "Name a folder that can be made, or make it yourself",
    });
  }
  syncReadable(parent);
}

/** To sync a folder it has to be opened for reading, and who may make something in it need not be allowed to do that. */
function syncReadable(path: string): void {
  try {
    syncFolder(path);
  } catch (error) {
    if (!(error instanceof MinorfaultError) || error.code !== "ERR_SOURCE_DENIED") throw error;
  }
}
