// Sockets that systemd opened for us (LISTEN_FDS): they listen before the server runs, and while it is started anew.

import { fstatSync } from "node:fs";
import { MinorfaultError } from "../base/errors.ts";

const FIRST = 3;
/** LIMIT: sockets that are taken. */
const SOCKETS_MAX = 1024;

/**
 * The sockets by their names (FileDescriptorName=): `control`, or that of an image. Empty where nobody gave any.
 *
 * @throws ERR_BAD_ARGUMENT when they can't be told apart
 */
export function activatedSockets(environment: NodeJS.ProcessEnv = process.env): Map<string, number> {
  const { LISTEN_PID, LISTEN_FDS, LISTEN_FDNAMES = "" } = environment;
  const count = Number(LISTEN_FDS ?? 0);
  if (LISTEN_PID !== String(process.pid) || !Number.isSafeInteger(count) || count <= 0) return new Map();
  const names = LISTEN_FDNAMES.split(":");
  if (count > SOCKETS_MAX || names.length !== count || new Set(names).size !== count) {
    throw new MinorfaultError(
      "ERR_BAD_ARGUMENT",
      `The ${count} sockets of systemd are named ${LISTEN_FDNAMES}`,
      {
        hint: "Each needs a FileDescriptorName= of its own: control, or the name of an image",
      },
    );
  }
  const sockets = new Map(names.map((name, index) => [name, FIRST + index]));
  for (const [name, fd] of sockets) {
    if (!fstatSync(fd).isSocket()) {
      throw new MinorfaultError("ERR_BAD_ARGUMENT", `What systemd gave as ${name} is not a socket`);
    }
  }
  return sockets;
}
