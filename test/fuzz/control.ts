// Control calls that nobody should make: requests that are nearly right, bodies of anything, bytes that are no HTTP. Whatever
// comes must be answered with what the operation says or with an error of the catalogue, and leave nothing behind.
//
// One in fifty is written to the socket as bytes; the others are HTTP, over connections that are used again.

import { readdirSync } from "node:fs";
import { Agent, request } from "node:http";
import { connect } from "node:net";
import { ERRORS } from "../../src/base/errors.ts";
import { Random } from "../../src/base/random.ts";
import { ROUTES, type Route } from "../../src/daemon/control/routes.ts";
import { FakeGuest, type FakeTable } from "../control/fake-table.ts";

export interface ControlFuzz {
  /** Answers by status. */
  readonly statuses: Readonly<Record<string, number>>;
  readonly failures: readonly string[];
  readonly descriptors: { readonly before: number; readonly after: number };
}

/** At once. */
const PARALLEL = 16;
const ANSWER_MS = 10_000;

const WORDS: readonly unknown[] = [
  "web",
  "none",
  "",
  "../../etc/passwd",
  "\u0000",
  "x".repeat(65),
  "<script>",
  "__proto__",
  "constructor",
  "💥",
  "%00",
  "a/b",
  0,
  1,
  -1,
  1.5,
  2 ** 31,
  2 ** 53,
  1e308,
  true,
  false,
  null,
  [],
  {},
  [[[[]]]],
  { toString: 1 },
  Array.from({ length: 100 }, (_, index) => index),
];
const NAMES = [
  ...new Set(
    Object.values<Route>(ROUTES).flatMap(({ params, query, body }) =>
      [params, query, body].flatMap((schema) => Object.keys(schema?.entries ?? {})),
    ),
  ),
  "__proto__",
  "constructor",
  "unknown",
];

interface Made {
  readonly method: string;
  readonly path: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string | undefined;
}

export async function fuzzControl(
  { socket, table }: { readonly socket: string; readonly table: FakeTable },
  count: number,
  seed: number,
  onProgress: (done: number) => void = () => undefined,
): Promise<ControlFuzz> {
  const random = new Random(seed);
  const statuses: Record<string, number> = {};
  const failures: string[] = [];
  // Everything has been used once before descriptors are counted.
  const agent = new Agent({ keepAlive: true, maxSockets: PARALLEL });
  await Promise.all(Array.from({ length: PARALLEL }, () => ask(socket, agent, HARMLESS)));
  const before = descriptors();
  let done = 0;
  const lane = async (): Promise<void> => {
    while (done < count) {
      done++;
      if (done % 1000 === 0) onProgress(done);
      refresh(table);
      try {
        if (random.below(50) === 0) {
          await throwBytes(socket, random);
          statuses.bytes = (statuses.bytes ?? 0) + 1;
          continue;
        }
        const made = make(random);
        const { status, text } = await ask(socket, agent, made);
        statuses[status] = (statuses[status] ?? 0) + 1;
        const wrong = problemOf(status, text);
        if (wrong !== undefined) failures.push(`seed ${seed}: ${JSON.stringify(made)}: ${wrong}`);
      } catch (error) {
        failures.push(`seed ${seed}: ${String(error)}`);
      }
    }
  };
  await Promise.all(Array.from({ length: PARALLEL }, lane));
  const { status } = await ask(socket, agent, HARMLESS);
  if (status !== 200) failures.push(`seed ${seed}: afterwards the server is not well: ${status}`);
  await settled(before);
  const after = descriptors();
  agent.destroy();
  return { statuses, failures, descriptors: { before, after } };
}

const HARMLESS: Made = { method: "GET", path: "/v1/health", headers: {}, body: undefined };

/** There is always somebody to list, to drain and to drop, and never too many. */
function refresh(table: FakeTable): void {
  if (table.guests.size === 0) table.arrive(new FakeGuest("1", "web", { name: "web" }));
  if (table.tickets.size > 50) table.tickets.clear();
  if (table.served.size > 20 || !table.served.has("web")) {
    table.served.clear();
    void table.addImage({ name: "web", source: { url: "/web" } });
  }
  table.calls.length = 0;
}

function make(random: Random): Made {
  const routes = Object.values<Route>(ROUTES);
  const route = routes[random.below(routes.length)]!;
  const method =
    random.below(20) === 0 ? pick(random, ["GET", "PUT", "OPTIONS", "HEAD", "TRACE"]) : route.method;
  const id = () =>
    encodeURIComponent(
      random.below(3) === 0 ? JSON.stringify(pick(random, WORDS)) : pick(random, ["1", "web"]),
    );
  let path = route.path.replaceAll(/\{\w+\}/g, id);
  if (random.below(4) === 0) path += `?${pick(random, NAMES)}=${id()}`;
  if (random.below(50) === 0) path = `/${id()}/${id()}`;
  const headers: Record<string, string> = {};
  if (random.below(40) === 0) headers.origin = "http://evil.example";
  if (random.below(40) === 0) headers.host = "evil.example";
  const hasBody = route.body !== undefined ? random.below(20) > 0 : random.below(20) === 0;
  if (!hasBody || method === "HEAD" || method === "TRACE") return { method, path, headers, body: undefined };
  headers["content-type"] = random.below(20) === 0 ? "text/plain" : "application/json";
  const body = bodyOf(random, route);
  headers["content-length"] = String(Buffer.byteLength(body));
  return { method, path, headers, body };
}

function bodyOf(random: Random, route: Route): string {
  const own = Object.keys(route.body?.entries ?? {});
  const fields = own.filter(() => random.below(2) === 0);
  if (random.below(4) === 0) fields.push(pick(random, NAMES));
  const value = (name: string): unknown => {
    if (random.below(5) === 0) return pick(random, WORDS);
    if (name === "image" || name === "name") return "web";
    return name === "url" || name === "path" ? "/srv/x" : 1 + random.below(1000);
  };
  // By hand: JSON.stringify drops a __proto__ of its own.
  const pairs = fields.map((name) => `${JSON.stringify(name)}:${JSON.stringify(value(name))}`);
  const text = `{${pairs.join(",")}}`;
  switch (random.below(12)) {
    case 0:
      return text.slice(0, random.below(text.length));
    case 1:
      return JSON.stringify(pick(random, WORDS));
    case 2:
      return "[".repeat(random.below(20_000));
    case 3:
      return `{"image":"${"x".repeat(random.below(100_000))}"}`;
    default:
      return text;
  }
}

/** What is wrong with an answer. */
function problemOf(status: number, text: string): string | undefined {
  if (status >= 200 && status < 300) return undefined;
  if (status >= 500 && status !== 503) return `answered ${status}: ${text}`;
  if (text === "") return undefined;
  try {
    const { error } = JSON.parse(text) as { error: { code: string; message: string; hint: string } };
    if (!(error.code in ERRORS) || error.message === "" || error.hint === "")
      return `no error of ours: ${text}`;
    return error.code === "ERR_BUG" ? `a bug: ${text}` : undefined;
  } catch {
    // Node answers by itself what is no HTTP at all.
    return status === 400 ? undefined : `no JSON: ${text}`;
  }
}

function ask(
  socket: string,
  agent: Agent,
  { method, path, headers, body }: Made,
): Promise<{ status: number; text: string }> {
  return new Promise((resolve, reject) => {
    const outgoing = request(
      { socketPath: socket, agent, method, path, headers, timeout: ANSWER_MS },
      (response) => {
        let text = "";
        response.setEncoding("utf8").on("data", (part: string) => {
          text += part;
        });
        response.once("end", () => resolve({ status: response.statusCode ?? 0, text }));
        response.once("error", reject);
      },
    );
    outgoing.once("timeout", () => outgoing.destroy(new Error(`No answer to ${method} ${path}`)));
    outgoing.once("error", (error: NodeJS.ErrnoException) => {
      // A body that is too long is refused before all of it has been sent.
      if ((body?.length ?? 0) > 60_000 && (error.code === "EPIPE" || error.code === "ECONNRESET")) {
        resolve({ status: 413, text: "" });
      } else reject(error);
    });
    outgoing.end(body);
  });
}

/** Bytes that are no HTTP, or its beginning; the server hangs up, or we do. */
function throwBytes(socket: string, random: Random): Promise<void> {
  return new Promise((resolve) => {
    const connection = connect(socket);
    connection.once("close", () => resolve());
    connection.once("error", () => connection.destroy());
    connection.once("connect", () => {
      const isHttp = random.below(2) === 0;
      const bytes = Buffer.from(Array.from({ length: 1 + random.below(200) }, () => random.below(256)));
      connection.write(isHttp ? "POST /v1/guests HTTP/1.1\r\nHost: x\r\nContent-Length: 999\r\n\r\n" : bytes);
      connection.end();
    });
    connection.resume();
  });
}

/** Connections that were hung up are closed a moment later. */
async function settled(wanted: number): Promise<void> {
  for (let turn = 0; turn < 1000 && descriptors() > wanted; turn++) {
    await new Promise((resolve) => setImmediate(resolve));
  }
}

function descriptors(): number {
  return readdirSync("/proc/self/fd").length;
}

function pick<T>(random: Random, values: readonly T[]): T {
  return values[random.below(values.length)]!;
}
