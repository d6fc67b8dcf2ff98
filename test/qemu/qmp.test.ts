// The QMP client against a server that speaks it well, badly, and not at all.

import assert from "node:assert/strict";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { createServer, type Server, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { MinorfaultError } from "../../src/base/errors.ts";
import { QmpClient, type QmpEvent } from "../../src/guest/qemu/index.ts";

const folder = mkdtempSync(join(tmpdir(), "minorfault-qmp-"));
after(() => rmSync(folder, { recursive: true }));

const GREETING =
  '{"QMP": {"version": {"qemu": {"major": 7, "minor": 2, "micro": 22}, "package": "Debian"}}}\r\n';

interface Command {
  readonly execute: string;
  readonly id: number;
}

/** A server that answers with what `answer` says, each command in one go. */
async function server(
  name: string,
  answer: (command: Command, socket: Socket) => string,
  greeting = GREETING,
): Promise<{ path: string; server: Server }> {
  const path = join(folder, name);
  const made = createServer((socket) => {
    socket.on("error", () => {});
    socket.write(greeting);
    let text = "";
    socket.setEncoding("utf8").on("data", (more: string) => {
      text += more;
      for (let end = text.indexOf("\n"); end !== -1; end = text.indexOf("\n")) {
        socket.write(answer(JSON.parse(text.slice(0, end)) as Command, socket));
        text = text.slice(end + 1);
      }
    });
  });
  made.listen(path);
  await once(made, "listening");
  after(() => made.close());
  return { path, server: made };
}

const ok = ({ id }: Command, value: unknown = {}): string => `${JSON.stringify({ return: value, id })}\r\n`;

function code(expected: string, words: string) {
  return (thrown: unknown) => {
    assert.ok(thrown instanceof MinorfaultError, String(thrown));
    assert.equal(thrown.code, expected, thrown.message);
    assert.ok(thrown.message.includes(words), thrown.message);
    return true;
  };
}

test("commands get their own answers, whatever the order, and events come in between", async () => {
  const late: Command[] = [];
  const { path } = await server("good", (command) => {
    if (command.execute === "qmp_capabilities") return ok(command);
    late.push(command);
    if (late.length < 3) return '{"event": "STOP", "data": {"n": 1}}\r\n';
    return late
      .reverse()
      .map((each) => ok(each, each.execute))
      .join("");
  });
  const client = await QmpClient.connect(path);
  assert.equal(client.version, "7.2.22 (Debian)");
  const events: QmpEvent[] = [];
  const silence = client.onEvent((event) => events.push(event));
  const answers = await Promise.all(["a", "b", "c"].map((name) => client.execute(name)));
  assert.deepEqual(answers, ["a", "b", "c"]);
  assert.deepEqual(events, [
    { name: "STOP", data: { n: 1 } },
    { name: "STOP", data: { n: 1 } },
  ]);
  silence();
  client.close();
  await assert.rejects(client.execute("d"), code("ERR_CLOSED", "closed"));
});

test("what QEMU refuses is told in its own words", async () => {
  const { path } = await server("refusing", (command) =>
    command.execute === "qmp_capabilities"
      ? ok(command)
      : `{"error": {"class": "GenericError", "desc": "There's a migration process in progress"}, "id": ${command.id}}\n`,
  );
  const client = await QmpClient.connect(path);
  await assert.rejects(
    client.execute("migrate"),
    code("ERR_QEMU", "refused migrate: There's a migration process in progress"),
  );
  client.close();
});

test("an answer in many pieces is one answer", async () => {
  const { path } = await server("slow", (command, socket) => {
    const text = ok(command, "ä".repeat(300));
    const bytes = Buffer.from(text);
    for (let at = 0; at < bytes.length; at += 7) socket.write(bytes.subarray(at, at + 7));
    return "";
  });
  const client = await QmpClient.connect(path);
  assert.equal(await client.execute("x"), "ä".repeat(300));
  client.close();
});

test("a server that is silent, or silent after its greeting, is given up after the deadline", async () => {
  const silent = await server("silent", () => "", "");
  await assert.rejects(QmpClient.connect(silent.path, { deadlineMs: 50 }), code("ERR_DEADLINE", "greeting"));
  // Time enough for the greeting, however busy the machine is.
  const mute = await server("mute", () => "");
  await assert.rejects(
    QmpClient.connect(mute.path, { deadlineMs: 1000 }),
    code("ERR_DEADLINE", "qmp_capabilities"),
  );
});

test("what is no QMP is refused, and nobody waits for it", async () => {
  for (const [name, greeting] of [
    ["http", "HTTP/1.1 400 Bad Request\r\n"],
    ["number", "7\n"],
    ["endless", "x".repeat(17 * 2 ** 20)],
    ["wrong", '{"QMP": {"version": "7.2"}}\n'],
  ] as const) {
    const { path } = await server(name, (command) => ok(command), greeting);
    await assert.rejects(QmpClient.connect(path), code("ERR_BAD_MESSAGE", "does not speak QMP"));
  }
});

test("a socket that is not there, or that closes, is an error that names it", async () => {
  const nobody = QmpClient.connect(join(folder, "nobody"));
  await assert.rejects(nobody, code("ERR_QEMU", "nobody (ENOENT)"));
  const { path } = await server("closing", (command, socket) => {
    if (command.execute === "qmp_capabilities") return ok(command);
    socket.destroy();
    return "";
  });
  const client = await QmpClient.connect(path);
  await assert.rejects(client.execute("quit"), code("ERR_QEMU", "closed its QMP socket"));
});
