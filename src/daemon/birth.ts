// How the server's processes are started, and which descriptors they are born with.

import { type ChildProcess, spawn } from "node:child_process";
import { fileURLToPath } from "node:url";

/** The link to whoever started it. */
export const FIRST_LINK = 3;
/** Where events for the one who started the server go. */
export const FRONT_PIPE = 4;
/** A new keeper's link to a process that would serve. */
export const SECOND_LINK = 5;

const PROGRAMS = {
  keeper: new URL("./keeper-process.js", import.meta.url),
  pager: new URL("./pager-process.js", import.meta.url),
} as const;

/** Starts one in a process of its own; answers its pid. `frontPipe`: by default, that of this process. */
export function spawnProcess(
  kind: keyof typeof PROGRAMS,
  folder: string,
  link: number,
  { secondLink, frontPipe = FRONT_PIPE }: { secondLink?: number | undefined; frontPipe?: number } = {},
): number {
  const child: ChildProcess = spawn(
    process.execPath,
    [fileURLToPath(PROGRAMS[kind]), folder, ...(secondLink === undefined ? [] : ["spare"])],
    {
      stdio: [
        "ignore",
        "inherit",
        "inherit",
        link,
        frontPipe,
        ...(secondLink === undefined ? [] : [secondLink]),
      ],
      // A signal from the terminal is for the one who started the server, and he tells whoever serves.
      detached: kind === "keeper",
    },
  );
  child.on("error", () => undefined);
  child.unref();
  // Without a pid it could not be started, and its link will say so.
  return child.pid ?? 0;
}
