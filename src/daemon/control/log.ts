// The server's log: one JSON object a line on stderr, with levels. URLs lose what could be a secret, headers and bodies
// are never logged.

import { destination, type Logger, pino, stdTimeFunctions } from "pino";
import { MinorfaultError } from "../../base/errors.ts";
import { plain } from "../../source/plain-url.ts";
import type { GuestEventName, GuestEvents, GuestTable } from "../guests.ts";
import { Throttle } from "../throttle.ts";

export const LOG_LEVELS = ["silent", "error", "warn", "info", "debug"] as const;
export type LogLevel = (typeof LOG_LEVELS)[number];

/** Writes later, not at once: a log that nobody reads must not stop the thread that takes hand-overs. */
export function openLog(level: LogLevel, stream?: NodeJS.WritableStream): Logger {
  const options = {
    level,
    base: { pid: process.pid },
    timestamp: stdTimeFunctions.isoTime,
    formatters: { level: (label: string) => ({ level: label }) },
    serializers: { error: errorText },
  };
  return pino(options, stream ?? destination({ fd: 2, sync: false }));
}

/** Writes what happens to guests and to the server. Answers how to stop. */
export function logEvents(table: GuestTable, log: Logger): () => void {
  const refusals = new Throttle((count) => log.warn({ count }, "more were refused"));
  const writers: { readonly [Name in GuestEventName]: (event: GuestEvents[Name]) => void } = {
    connected: ({ image, pid, uid }) => log.debug({ image: plain(image), peer: pid, uid }, "connected"),
    serving: ({ guest: { id, name, image, pid, uid, byteLength, handOverMs, pagers } }) =>
      log.info(
        { guest: id, name, image: plain(image), peer: pid, uid, byteLength, handOverMs, pagers },
        "serving",
      ),
    refused: ({ image, pid, uid, error }) => {
      if (refusals.admits()) log.warn({ image: plain(image), peer: pid, uid, error }, "refused");
    },
    error: ({ guest, error }) => log.error({ guest, error }, "a page could not be served"),
    ended: ({ guest: { id, name, image, pid, statistics }, reason, detail }) =>
      log.info(
        { guest: id, name, image: plain(image), peer: pid, reason, detail, faults: statistics.faults },
        "ended",
      ),
    takeover: ({ guests, ms, why }) => log.info({ guests, ms, why }, "this pager serves"),
    keeper: ({ pid, why }) => log.warn({ keeper: pid, why }, "another keeper"),
    spare: ({ pid }) => log.debug({ spare: pid }, "a spare stands by"),
  };
  const names = Object.keys(writers) as GuestEventName[];
  for (const name of names) table.on(name, writers[name] as (event: unknown) => void);
  return () => {
    for (const name of names) table.off(name, writers[name] as (event: unknown) => void);
  };
}

function errorText(error: unknown): object {
  if (error instanceof MinorfaultError) return { code: error.code, message: error.message };
  return error instanceof Error ? { message: error.message, stack: error.stack } : { message: String(error) };
}
