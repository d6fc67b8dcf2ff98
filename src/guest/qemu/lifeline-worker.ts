// The process that holds the line to a QEMU (lifeline.ts). It answers the greeting itself, which QEMU would not any more,
// and passes everything else on. Whoever connects last has the line.
//
//   argv: the socket's path, QEMU's greeting      descriptor 3: the line to QEMU      4: our listening socket

import { rmSync } from "node:fs";
import { createServer, Socket } from "node:net";
import { END } from "./lifeline.ts";

const QEMU_FD = 3;
const LISTEN_FD = 4;

type Message = Record<string, unknown> & { id?: unknown };

const [, , path = "", greeting = "{}"] = process.argv;
const qemu = new Socket({ fd: QEMU_FD });
const server = createServer();
let client: Socket | undefined;
/** Answers to clients that are gone are nobody's. */
let turn = 0;

eachLine(qemu, (line) => {
  const message = JSON.parse(line) as Message;
  if (message.event !== undefined) {
    client?.write(`${line}\n`);
    return;
  }
  const [whose, id] = (message.id ?? []) as [number?, unknown?];
  if (whose === turn) send({ ...message, id });
});
qemu.on("error", () => {});
qemu.on("close", end);

server.on("connection", (socket) => {
  client?.destroy();
  client = socket;
  const mine = ++turn;
  socket.on("error", () => {});
  send({ QMP: JSON.parse(greeting) as unknown });
  eachLine(socket, (line) => {
    const message = JSON.parse(line) as Message;
    if (message.execute === END) end();
    else if (message.execute === "qmp_capabilities") send({ return: {}, id: message.id });
    else qemu.write(`${JSON.stringify({ ...message, id: [mine, message.id] })}\n`);
  });
});
server.listen({ fd: LISTEN_FD });

function send(message: Message): void {
  client?.write(`${JSON.stringify(message)}\n`);
}

function end(): void {
  rmSync(path, { force: true });
  process.exit(0);
}

function eachLine(socket: Socket, take: (line: string) => void): void {
  let text = "";
  socket.setEncoding("utf8");
  socket.on("data", (more: string) => {
    const lines = (text + more).split("\n");
    text = lines.pop() ?? "";
    for (const line of lines) {
      if (line.trim() !== "") take(line);
    }
  });
}
