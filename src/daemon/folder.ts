// Where a server's sockets are when nobody says: the same for who serves and for who asks.

import { tmpdir, userInfo } from "node:os";
import { join } from "node:path";

/** MINORFAULT_FOLDER; else /run/minorfault for root, and the user's own run-time folder for everybody else. */
export function defaultFolder(environment: NodeJS.ProcessEnv = process.env): string {
  const { MINORFAULT_FOLDER, XDG_RUNTIME_DIR } = environment;
  if (MINORFAULT_FOLDER) return MINORFAULT_FOLDER;
  const { uid } = userInfo();
  if (uid === 0) return "/run/minorfault";
  return XDG_RUNTIME_DIR ? join(XDG_RUNTIME_DIR, "minorfault") : join(tmpdir(), `minorfault-${uid}`);
}

export function controlPath(folder: string): string {
  return join(folder, "control.sock");
}
