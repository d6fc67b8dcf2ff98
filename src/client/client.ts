// A client of the control API: one method an operation, typed by the table of routes that the server serves.

import { MinorfaultError } from "../base/errors.ts";
import type { Frame } from "../daemon/control/frame.ts";
import {
  type AnswerOf,
  type InputOf,
  type OperationName,
  ROUTES,
  type Route,
} from "../daemon/control/routes.ts";
import { controlPath, defaultFolder } from "../daemon/folder.ts";
import { ask, send, type Where } from "./connection.ts";
import { eventsOf } from "./events.ts";

export interface ClientOptions {
  /** The control socket. Default: that of the server in `$MINORFAULT_FOLDER`, or where servers are by default. */
  readonly socket?: string;
  /** Instead of a socket: `http://127.0.0.1:PORT`, with the server's token. */
  readonly url?: string;
  readonly token?: string;
}

export interface CallOptions {
  /** Gives up waiting. What the server has begun it may finish. */
  readonly signal?: AbortSignal;
}

/** Operations that can be called without saying anything. */
type Arguments<Name extends OperationName> =
  Record<never, never> extends InputOf<Name>
    ? [input?: InputOf<Name>, options?: CallOptions]
    : [input: InputOf<Name>, options?: CallOptions];

type Calls = {
  readonly [Name in OperationName]: (...given: Arguments<Name>) => Promise<AnswerOf<Name>>;
};

export interface WatchOptions extends CallOptions {
  /** Whose history is part of every frame. */
  readonly guest?: string;
  /** Default 500. */
  readonly everyMs?: number;
}

export interface Client extends Calls {
  /** Prometheus's text. */
  metrics(options?: CallOptions): Promise<string>;
  /** The server and its guests, again and again, until the loop is left or the signal says so. */
  watch(options?: WatchOptions): AsyncGenerator<Frame, void, undefined>;
}

/**
 * @example
 * const client = createClient({ socket: "/run/minorfault/control.sock" });
 * const { socket } = await client.expectGuest({ image: "web", name: "vm-7" });
 */
export function createClient(options: ClientOptions = {}): Client {
  const where = whereOf(options);
  const calls = Object.fromEntries(
    Object.entries<Route>(ROUTES).map(([name, route]) => [
      name,
      async (input: object = {}, { signal }: CallOptions = {}) => {
        const text = await ask(where, { method: route.method, ...placed(route, input), signal });
        return JSON.parse(text) as unknown;
      },
    ]),
  ) as unknown as Calls;
  return {
    ...calls,
    async metrics({ signal } = {}) {
      return ask(where, { method: "GET", path: "/metrics", accept: "text/plain", signal });
    },
    async *watch({ signal, guest, everyMs } = {}) {
      const query = new URLSearchParams();
      if (guest !== undefined) query.set("guest", guest);
      if (everyMs !== undefined) query.set("everyMs", String(everyMs));
      const path = `/v1/stream?${query}`;
      const response = await send(where, { method: "GET", path, accept: "text/event-stream", signal });
      try {
        for await (const { event, data } of eventsOf(response)) {
          if (event === "frame") yield JSON.parse(data) as Frame;
        }
      } finally {
        response.destroy();
      }
    },
  };
}

function whereOf({ socket, url, token }: ClientOptions): Where {
  if (url === undefined) return { socket: socket ?? controlPath(defaultFolder()) };
  if (token === undefined) {
    throw new MinorfaultError("ERR_BAD_ARGUMENT", "A server at a URL needs its token");
  }
  return { url, token };
}

/** Each field of the input where it travels. */
function placed(route: Route, input: object): { path: string; body?: unknown } {
  const given = new Map(Object.entries(input).filter(([, value]) => value !== undefined));
  const take = (schema: Route["body"]): [string, unknown][] =>
    Object.keys(schema?.entries ?? {}).flatMap((key) => (given.has(key) ? [[key, given.get(key)]] : []));
  let path: string = route.path;
  for (const [key, value] of take(route.params)) {
    path = path.replace(`{${key}}`, encodeURIComponent(String(value)));
  }
  const query = new URLSearchParams(
    take(route.query).map(([key, value]): [string, string] => [key, String(value)]),
  );
  if (query.size > 0) path += `?${query}`;
  return route.body === undefined ? { path } : { path, body: Object.fromEntries(take(route.body)) };
}
