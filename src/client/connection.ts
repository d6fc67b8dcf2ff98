// One request of the control API and its answer, at a unix socket or at loopback TCP.

import { type IncomingMessage, request } from "node:http";
import { ERRORS, type ErrorCode, MinorfaultError } from "../base/errors.ts";

/** LIMIT: bytes of an answer. */
const ANSWER_BYTES_MAX = 256 * 2 ** 20;

export type Where =
  | { readonly socket: string }
  /** `http://127.0.0.1:PORT`, and the server's token. */
  | { readonly url: string; readonly token: string };

export interface Call {
  readonly method: string;
  /** With its query. */
  readonly path: string;
  readonly body?: unknown;
  readonly signal?: AbortSignal | undefined;
  readonly accept?: string;
}

/**
 * Sends a request; resolves with the text of its answer. What only asks is asked again, once, when the connection broke: a
 * pager that ends takes its connections along, and the next one answers.
 */
export async function ask(where: Where, call: Call): Promise<string> {
  try {
    return await textOf(await send(where, call));
  } catch (error) {
    if (call.method !== "GET" || !isBroken(error) || call.signal?.aborted) throw error;
    return await textOf(await send(where, call));
  }
}

function isBroken(error: unknown): boolean {
  const { code } = ((error as Error).cause ?? error) as NodeJS.ErrnoException;
  return code === "ECONNRESET" || code === "EPIPE";
}

/** Sends a request; resolves with the answer's head. @throws ERR_NO_SERVER, and what the server answered */
export async function send(where: Where, call: Call): Promise<IncomingMessage> {
  const { method, path, body, signal, accept = "application/json" } = call;
  signal?.throwIfAborted();
  const text = body === undefined ? undefined : JSON.stringify(body);
  const headers: Record<string, string | number> = { accept };
  if (text !== undefined) {
    headers["content-type"] = "application/json";
    headers["content-length"] = Buffer.byteLength(text);
  }
  if ("token" in where) headers.authorization = `Bearer ${where.token}`;
  const response = await new Promise<IncomingMessage>((resolve, reject) => {
    const target = "socket" in where ? { socketPath: where.socket, host: "localhost" } : urlParts(where.url);
    // What changes something is sent once, so not by a connection that may have been left over by a dead pager.
    const agent = method === "GET" ? {} : { agent: false as const };
    const outgoing = request(
      { ...target, ...agent, method, path, headers, ...(signal ? { signal } : {}) },
      resolve,
    );
    outgoing.once("error", (cause) => {
      reject(signal?.aborted ? signal.reason : unreachable(where, cause));
    });
    outgoing.end(text);
  });
  const { statusCode = 0 } = response;
  if (statusCode >= 200 && statusCode < 300) return response;
  throw await failureOf(response, where);
}

async function textOf(response: IncomingMessage): Promise<string> {
  const parts: Buffer[] = [];
  let byteLength = 0;
  for await (const part of response as AsyncIterable<Buffer>) {
    byteLength += part.byteLength;
    if (byteLength > ANSWER_BYTES_MAX) {
      throw new MinorfaultError("ERR_LIMIT", `The answer has more than ${ANSWER_BYTES_MAX} bytes`);
    }
    parts.push(part);
  }
  return Buffer.concat(parts).toString("utf8");
}

function urlParts(url: string): { host: string; port: number } {
  const { hostname, port, protocol } = new URL(url);
  if (protocol !== "http:") {
    throw new MinorfaultError("ERR_BAD_ARGUMENT", `The server's URL is http://127.0.0.1:PORT, not ${url}`);
  }
  return { host: hostname, port: Number(port === "" ? 80 : port) };
}

function unreachable(where: Where, cause: Error): MinorfaultError {
  const { code = cause.message } = cause as NodeJS.ErrnoException;
  const place = "socket" in where ? where.socket : where.url;
  const hint = code === "EACCES" ? { hint: "The socket is its owner's: run this as the server's user" } : {};
  return new MinorfaultError("ERR_NO_SERVER", `No page server answers at ${place} (${code})`, {
    cause,
    ...hint,
  });
}

async function failureOf(response: IncomingMessage, where: Where): Promise<MinorfaultError> {
  const text = await textOf(response);
  try {
    const { error } = JSON.parse(text) as { error: { code: string; message: string; hint: string } };
    if (error.code in ERRORS) {
      return new MinorfaultError(error.code as ErrorCode, error.message, { hint: error.hint });
    }
  } catch {
    // Not one of ours; said below.
  }
  const place = "socket" in where ? where.socket : where.url;
  return new MinorfaultError(
    "ERR_BAD_MESSAGE",
    `${place} answered ${response.statusCode} without a reason; is it a page server?`,
  );
}
