// A control API over a table that the test has made, at a socket of the test's own, and clients of it.

import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { type IncomingHttpHeaders, request } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Client, createClient } from "../../src/client/index.ts";
import { type Control, prepareControl } from "../../src/daemon/control/index.ts";
import { FakeTable } from "./fake-table.ts";

export const TOKEN = "a-token-of-this-test-only";

export interface Scene {
  readonly table: FakeTable;
  readonly control: Control;
  readonly socket: string;
  readonly client: Client;
}

/** Whoever tells us when it is over: a test, or a program. */
export interface Ending {
  after(end: () => Promise<void>): void;
}

export async function openScene(t: Ending, { tcp = false } = {}): Promise<Scene> {
  const folder = mkdtempSync(join(tmpdir(), "minorfault-control-"));
  const socket = join(folder, "control.sock");
  const table = new FakeTable();
  const options = { logLevel: "silent", ...(tcp ? { port: 0, token: TOKEN } : {}) };
  const prepared = await prepareControl(table, { control: options });
  const control = await prepared.open({ path: socket });
  t.after(async () => {
    await control.close();
    rmSync(folder, { recursive: true, force: true });
  });
  return { table, control, socket, client: createClient({ socket }) };
}

export interface RawAnswer {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly text: string;
  readonly json: {
    readonly error?: { readonly code: string; readonly message: string; readonly hint: string };
  };
}

export interface RawRequest {
  readonly socket?: string;
  readonly port?: number;
  readonly method?: string;
  readonly path: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: string;
}

/** A request as any program may send it. */
export async function raw({
  socket,
  port,
  method = "GET",
  path,
  headers = {},
  body,
}: RawRequest): Promise<RawAnswer> {
  const target = socket === undefined ? { host: "127.0.0.1", port } : { socketPath: socket };
  const outgoing = request({ ...target, method, path, headers, agent: false });
  outgoing.end(body);
  const [response] = (await once(outgoing, "response")) as [import("node:http").IncomingMessage];
  const parts: Buffer[] = [];
  for await (const part of response as AsyncIterable<Buffer>) parts.push(part);
  const text = Buffer.concat(parts).toString();
  const isJson = response.headers["content-type"]?.includes("json") ?? false;
  return {
    status: response.statusCode ?? 0,
    headers: response.headers,
    text,
    json: isJson ? (JSON.parse(text) as RawAnswer["json"]) : {},
  };
}
