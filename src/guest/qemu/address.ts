// Where a QEMU listens for a migration, as its own options write it: unix:PATH or tcp:HOST:PORT.

import { connect as connectSocket, type Socket } from "node:net";
import { MinorfaultError } from "../../base/errors.ts";

export type MigrationAddress =
  | { readonly kind: "unix"; readonly path: string }
  | { readonly kind: "tcp"; readonly host: string; readonly port: number };

export function parseAddress(uri: string): MigrationAddress {
  const unix = /^unix:(.+)$/.exec(uri);
  if (unix) return { kind: "unix", path: unix[1]! };
  const tcp = /^tcp:(\[([^\]]+)\]|[^:]*):(\d+)$/.exec(uri);
  const port = Number(tcp?.[3]);
  if (tcp && port > 0 && port < 65_536) return { kind: "tcp", host: tcp[2] ?? (tcp[1] || "localhost"), port };
  throw new MinorfaultError("ERR_BAD_ARGUMENT", `${uri} is not unix:PATH or tcp:HOST:PORT`);
}

/** Connects to a QEMU that listens. */
export function connectTo(uri: string, signal?: AbortSignal): Promise<Socket> {
  const address = parseAddress(uri);
  return new Promise((resolve, reject) => {
    const socket =
      address.kind === "unix" ? connectSocket(address.path) : connectSocket(address.port, address.host);
    const abort = (): void => {
      socket.destroy();
      reject(signal?.reason);
    };
    const settle = (): void => {
      signal?.removeEventListener("abort", abort);
      socket.removeAllListeners();
    };
    signal?.addEventListener("abort", abort);
    socket.once("connect", () => {
      settle();
      resolve(socket);
    });
    socket.once("error", (cause) => {
      settle();
      reject(nobody(uri, cause));
    });
  });
}

function nobody(uri: string, cause: Error): MinorfaultError {
  return new MinorfaultError("ERR_QEMU", `No QEMU waits at ${uri}: ${cause.message}`, {
    cause,
    hint: "It listens once it has been started with -incoming, or told so by migrate-incoming; it takes one connection",
  });
}
