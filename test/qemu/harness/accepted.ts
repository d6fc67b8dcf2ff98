// A unix socket on which we listen and QEMU calls: nothing has to be tried again until it is there.

import { once } from "node:events";
import { createServer, type Server, type Socket } from "node:net";

export interface Accepted {
  readonly path: string;
  /** The first caller. */
  readonly socket: Promise<Socket>;
  close(): void;
}

export async function acceptOne(path: string): Promise<Accepted> {
  const server: Server = createServer();
  const socket = once(server, "connection").then(([caller]) => caller as Socket);
  // Whoever closes before somebody has called waits for nobody.
  socket.catch(() => {});
  server.listen(path);
  await once(server, "listening");
  void socket.then(() => server.close());
  return { path, socket, close: () => server.close() };
}
