// The control API of a server: everything that operators, programs and browsers see of it. A process that would serve builds
// it, which takes longer than to take over a hundred guests; one that serves opens it.

import type { Logger } from "pino";
import type { ServerConfig } from "../config.ts";
import type { GuestTable } from "../guests.ts";
import { pageFiles } from "../page/files.ts";
import { packageVersion } from "../version.ts";
import { publishEvents } from "./channels.ts";
import { logEvents, openLog } from "./log.ts";
import { Metrics } from "./metrics.ts";
import { openApiDocument } from "./openapi.ts";
import { operationsOf } from "./operations.ts";
import { type ControlOptions, parseControlOptions } from "./options.ts";
import { Recorder } from "./recorder.ts";
import { ControlServer, type Extra } from "./server.ts";
import { Streams } from "./stream.ts";

export interface PreparedControl {
  /** Serves it at a socket that listens already (its descriptor), or at a path that is free. */
  open(where: number | { readonly path: string }): Promise<Control>;
}

export interface Control {
  /** Of the loopback, if there is one. */
  readonly port: number | undefined;
  close(): Promise<void>;
}

export async function prepareControl(
  table: GuestTable,
  config: Pick<ServerConfig, "control">,
): Promise<PreparedControl> {
  const options = parseControlOptions(config.control);
  const log = openLog(options.logLevel ?? "info");
  const version = packageVersion();
  const recorder = new Recorder(table);
  const metrics = new Metrics(table, version);
  const streams = new Streams(table, recorder, version);
  const stops = [logEvents(table, log), publishEvents(table)];
  const server = new ControlServer({
    operations: operationsOf({
      table,
      recorder,
      version,
      onLateError: (what, error) => log.error({ error }, what),
    }),
    extras: [...probes(table), ...reports(metrics, streams, version), ...pageFiles()],
    onAnswer(operation, method, status, ms) {
      metrics.countRequest(operation, status);
      log.debug({ operation, method, status, ms: Math.round(ms * 10) / 10 }, "control");
    },
    onBug: (error) => log.error({ error }, "a bug in the control API"),
  });
  await server.prepare();
  return {
    open: async (where) => {
      const port = await openAt(where, server, options, log);
      const { takeovers } = table.counters;
      log.info({ version, guests: table.list().length, takeovers }, "the control API is open");
      return { port, close };
    },
  };

  async function close(): Promise<void> {
    for (const stop of stops) stop();
    recorder.close();
    streams.close();
    await server.close();
    metrics.close();
    log.flush();
  }
}

/** Answers the port of the loopback, if there is one. */
async function openAt(
  where: number | { readonly path: string },
  server: ControlServer,
  options: ControlOptions,
  log: Logger,
): Promise<number | undefined> {
  let port: number | undefined;
  if (options.port !== undefined && options.token !== undefined) {
    try {
      port = await server.listenTcp(options.port, options.token);
      log.info({ url: `http://127.0.0.1:${port}/` }, "control at loopback, with the token");
    } catch (error) {
      // Guests come first: who operates still has the unix socket.
      log.error({ error, port: options.port }, "the port of the control API cannot be had");
    }
  }
  await server.listen(typeof where === "number" ? { descriptor: where } : where);
  return port;
}

function probes(table: GuestTable): Extra[] {
  return [
    { path: "/healthz", isOpen: true, answer: (_, reply) => reply.type("text/plain").send("ok\n") },
    {
      path: "/readyz",
      isOpen: true,
      answer: (_, reply) => {
        const { ready, why = "not ready" } = table.health;
        return reply
          .status(ready ? 200 : 503)
          .type("text/plain")
          .send(ready ? "ready\n" : `${why}\n`);
      },
    },
  ];
}

function reports(metrics: Metrics, streams: Streams, version: string): Extra[] {
  const document = openApiDocument(version);
  return [
    { path: "/openapi.json", isOpen: true, answer: (_, reply) => reply.send(document) },
    {
      path: "/metrics",
      isOpen: false,
      answer: async (_, reply) => reply.type(metrics.contentType).send(await metrics.text()),
    },
    { path: "/v1/stream", isOpen: false, answer: streams.answer },
  ];
}
