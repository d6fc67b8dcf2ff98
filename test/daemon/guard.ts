// Ends a page server of a test whose process dies before it could: a server outlives whoever started it, which is right, and
// nobody's wish when `timeout` ends a test. A shell of its own session reads from a pipe that only the test's process holds
// open; when that ends, however it does, all that has the server's folder among its arguments is killed.

import { spawn } from "node:child_process";
import type { Socket } from "node:net";

const SCRIPT = `cat >/dev/null
while
  pids=$(ps -eo pid=,args= | awk 'index($0, " " ENVIRON["GUARDED"]) { print $1 }')
  [ -n "$pids" ]
do kill -9 $pids; done
rm -rf "$DELETED"`;

/** From now on; `root` is deleted with it. Call what it answers when the server has ended in another way. */
export function guardServer(folder: string, root: string): () => void {
  const shell = spawn("sh", ["-c", SCRIPT], {
    stdio: ["pipe", "ignore", "ignore"],
    env: { PATH: process.env.PATH, GUARDED: folder, DELETED: root },
    detached: true,
  });
  // Nobody waits for it: what it does, it does when we are gone.
  shell.unref();
  (shell.stdin as Socket).unref();
  return () => shell.stdin.end();
}
