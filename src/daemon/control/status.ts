// What the control API says of guests, images and the server, made from the table of guests.

import { countBits } from "../../base/bitmap.ts";
import type { ExpectedGuest, GuestStatus, GuestTable, ImageStatus } from "../guests.ts";
import type { AnswerOf } from "./routes.ts";
import { type Guest, type GuestDetails, type Health, type Image, statistics } from "./schemas.ts";

export function isoTime(msSinceEpoch: number): string {
  return new Date(msSinceEpoch).toISOString();
}

export function guestJson(status: GuestStatus): Guest {
  const { id, name, image, state, pid, uid, gid, since, handOverMs, pagers, byteLength } = status;
  return {
    id,
    ...(name === undefined ? {} : { name }),
    image,
    state,
    pid,
    uid,
    gid,
    since: isoTime(since),
    handOverMs,
    pagers,
    byteLength,
    residentBytes: residentBytes(status),
    statistics: told(status.statistics),
  };
}

/** Those that the schema names. */
function told(all: GuestStatus["statistics"]): Guest["statistics"] {
  const keys = Object.keys(statistics.entries) as (keyof Guest["statistics"])[];
  return Object.fromEntries(keys.map((key) => [key, all[key]])) as Guest["statistics"];
}

export function guestDetailsJson(status: GuestStatus): GuestDetails {
  return { ...guestJson(status), regions: status.regions };
}

export function residentBytes(status: GuestStatus): number {
  return status
    .residency()
    .reduce((sum, { resident, pageSize, pageCount }) => sum + countBits(resident, pageCount) * pageSize, 0);
}

export function expectedJson({ id, name, image, socket, until }: ExpectedGuest): AnswerOf<"expectGuest"> {
  return { id, ...(name === undefined ? {} : { name }), image, socket, until: isoTime(until) };
}

export function imageJson({
  name,
  source,
  socket,
  state,
  byteLength,
  workingSets,
  error,
  guests,
}: ImageStatus): Image {
  return {
    name,
    url: "url" in source ? source.url : source.module,
    socket,
    state,
    ...(byteLength === undefined ? {} : { byteLength }),
    ...(workingSets === undefined ? {} : { workingSets }),
    ...(error === undefined ? {} : { error }),
    guests,
  };
}

export function healthJson(table: GuestTable, version: string): Health {
  const { ready, why, pid, keeperPid, sparePid, since, serverSince } = table.health;
  const { connections, handOvers, refused, ended, takeovers, keepers } = table.counters;
  return {
    ready,
    ...(why === undefined ? {} : { why }),
    version,
    pid,
    keeperPid,
    ...(sparePid === undefined ? {} : { sparePid }),
    since: isoTime(since),
    serverSince: isoTime(serverSince),
    guests: table.list().length,
    expected: table.expected().length,
    images: table.images().length,
    counters: { connections, handOvers, refused, ended, takeovers, keepers },
  };
}
