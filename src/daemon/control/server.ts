// The control API over HTTP: fastify serves the table of routes, at a unix socket and, on request, at loopback TCP.
//
// What comes in is hostile until a schema has passed it: bodies, headers, time and connections have limits, and
// nothing of a request reaches an operation that its schema does not name.

import { once } from "node:events";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import type { Duplex } from "node:stream";
import fastify, { type FastifyInstance, type FastifyReply, type FastifyRequest } from "fastify";
import { MinorfaultError } from "../../base/errors.ts";
import { checked } from "../../base/schema.ts";
import { failureOf } from "./failure.ts";
import { gate } from "./gate.ts";
import { type Asked, type ObjectSchema, type Operations, ROUTES, type Route } from "./routes.ts";

/** LIMITs of what a request may be. */
const BODY_BYTES_MAX = 64 * 1024;
const HEADER_BYTES_MAX = 16 * 1024;
const CONNECTIONS_MAX = 256;
const HEADERS_MS = 10_000;
const REQUEST_MS = 30_000;

/** Answers that are no calls: text, files, streams. */
export interface Extra {
  readonly path: string;
  /** Holds nothing secret, so it needs no token. */
  readonly isOpen: boolean;
  readonly answer: (request: FastifyRequest, reply: FastifyReply) => unknown;
}

export interface ControlServerOptions {
  readonly operations: Operations;
  readonly extras: readonly Extra[];
  /** Told of every answer. */
  readonly onAnswer: (operation: string, method: string, status: number, ms: number) => void;
  /** Told of what was not thrown on purpose. */
  readonly onBug: (error: unknown) => void;
}

export class ControlServer {
  readonly #app: FastifyInstance;
  readonly #open = new Set<string>();
  #token: string | undefined;
  #tcp: Server | undefined;

  constructor(options: ControlServerOptions) {
    this.#app = fastify({
      bodyLimit: BODY_BYTES_MAX,
      requestTimeout: REQUEST_MS,
      forceCloseConnections: true,
      http: { maxHeaderSize: HEADER_BYTES_MAX, headersTimeout: HEADERS_MS },
      clientErrorHandler: refuseBytes,
      // What the router refuses by itself: paths that cannot be decoded, names that are too long.
      frameworkErrors: (error, _request, reply) => {
        const { status, body } = failureOf(error);
        void (reply as FastifyReply).status(status).send(body);
      },
    });
    // A body is JSON or nothing.
    this.#app.removeContentTypeParser("text/plain");
    this.#app.addHook("onRequest", async (request, reply) => {
      reply.header("cache-control", "no-store").header("x-content-type-options", "nosniff");
      const isTcp = request.raw.socket.remoteAddress !== undefined;
      const isOpen = this.#open.has(request.routeOptions.url ?? "");
      const refusal = gate(request.raw, isTcp ? this.#token : undefined, isOpen);
      if (refusal === undefined) return;
      if (refusal.status === 401) reply.header("www-authenticate", 'Bearer realm="minorfault"');
      return reply.status(refusal.status).send(failureOf(refusal.error).body);
    });
    this.#app.addHook("onResponse", async (request, reply) => {
      const { config, url } = request.routeOptions;
      const operation = (config as { operation?: string }).operation ?? url ?? "none";
      options.onAnswer(operation, request.method, reply.statusCode, reply.elapsedTime);
    });
    this.#app.setErrorHandler((error, _request, reply) => {
      const { status, body } = failureOf(error);
      if (body.error.code === "ERR_BUG") options.onBug(error);
      return reply.status(status).send(body);
    });
    this.#app.setNotFoundHandler((_request, reply) => {
      const error = new MinorfaultError("ERR_NO_SUCH", "The control API has no such operation", {
        hint: "GET /openapi.json lists them",
      });
      return reply.status(404).send(failureOf(error).body);
    });
    for (const [name, route] of Object.entries<Route>(ROUTES)) this.#serve(name, route, options.operations);
    for (const { path, isOpen, answer } of options.extras) {
      if (isOpen) this.#open.add(path);
      this.#app.get(path, answer);
    }
  }

  /** All that can be done before anybody can call. */
  async prepare(): Promise<void> {
    await this.#app.ready();
  }

  /** At a unix socket: one that listens already, or a path that is free. */
  async listen(where: { readonly descriptor: number } | { readonly path: string }): Promise<void> {
    await this.#app.ready();
    const { server } = this.#app;
    server.maxConnections = CONNECTIONS_MAX;
    server.listen("descriptor" in where ? { fd: where.descriptor } : where);
    await once(server, "listening");
  }

  /** At a port of this machine's loopback, for those who have the token. Answers the port. */
  async listenTcp(port: number, token: string): Promise<number> {
    await this.#app.ready();
    this.#token = token;
    const tcp = createServer(
      { maxHeaderSize: HEADER_BYTES_MAX, headersTimeout: HEADERS_MS, requestTimeout: REQUEST_MS },
      (request, response) => this.#app.routing(request, response),
    );
    this.#tcp = tcp;
    tcp.on("clientError", refuseBytes);
    tcp.maxConnections = CONNECTIONS_MAX;
    tcp.listen(port, "127.0.0.1");
    await once(tcp, "listening");
    return (tcp.address() as AddressInfo).port;
  }

  async close(): Promise<void> {
    this.#tcp?.closeAllConnections();
    await new Promise<void>((resolve) => {
      if (this.#tcp === undefined) resolve();
      else this.#tcp.close(() => resolve());
    });
    await this.#app.close();
  }

  #serve(name: string, route: Route, operations: Operations): void {
    const operation = operations[name as keyof Operations] as (input: object, asked: Asked) => unknown;
    this.#app.route({
      method: route.method,
      url: route.path.replaceAll(/\{(\w+)\}/g, ":$1"),
      config: { operation: name } as object,
      handler: async (request, reply) => {
        const input = {
          ...part("the path", route.params, request.params),
          ...part("the query", route.query, request.query),
          ...part("the body", route.body, request.body ?? {}),
        };
        const answer = await operation(input, {
          signal: goneSignal(reply),
          afterwards: (work) => void reply.raw.once("close", work),
        });
        return reply.status(route.status).send(answer);
      },
    });
  }
}

/** Answers what is no HTTP, and hangs up. */
function refuseBytes(error: Error & { readonly code?: string }, socket: Duplex): void {
  if (!socket.writable || error.code === "ECONNRESET") {
    socket.destroy();
    return;
  }
  const isTooLong = error.code === "HPE_HEADER_OVERFLOW";
  const message = isTooLong ? "The headers are too long" : "The request is not HTTP";
  const { body } = failureOf(new MinorfaultError("ERR_BAD_MESSAGE", message));
  const text = JSON.stringify(body);
  socket.end(
    `HTTP/1.1 ${isTooLong ? "431 Request Header Fields Too Large" : "400 Bad Request"}\r\n` +
      `content-type: application/json\r\ncontent-length: ${Buffer.byteLength(text)}\r\nconnection: close\r\n\r\n${text}`,
  );
}

/** Raised when the one who asked has gone before he was answered. */
function goneSignal(reply: FastifyReply): AbortSignal {
  const controller = new AbortController();
  reply.raw.once("close", () => {
    if (!reply.raw.writableFinished) {
      controller.abort(new MinorfaultError("ERR_CLOSED", "The one who asked has gone"));
    }
  });
  return controller.signal;
}

function part(where: string, schema: ObjectSchema | undefined, given: unknown): object {
  if (schema === undefined) return {};
  return checked(
    schema,
    given,
    (flaw) =>
      new MinorfaultError("ERR_BAD_ARGUMENT", `In ${where}: ${flaw}`, {
        hint: "GET /openapi.json describes every operation",
      }),
  );
}
