// Stands in for the control API where that can't be had: whoever calls is told why, instead of waiting for ever at a socket
// that listens.

import { createServer, type Server } from "node:http";
import { MinorfaultError } from "../../base/errors.ts";
import { failureOf } from "./failure.ts";

/** At a socket that listens already. */
export function standIn(descriptor: number, why: string): Server {
  const { body } = failureOf(new MinorfaultError("ERR_BUG", why));
  const server = createServer((_, response) => {
    response.writeHead(503, { "content-type": "application/json", connection: "close" });
    response.end(JSON.stringify(body));
  });
  // Then there is nothing left that could be said.
  server.on("error", () => undefined);
  return server.listen({ fd: descriptor });
}
