// What the control API says and takes, once: requests are checked by these, answers are made to these, the OpenAPI
// document and the client's types come from them.
//
// Times are ISO 8601, lengths are bytes, addresses are numbers (user addresses stay below 2^53).

import * as v from "valibot";
import { ERRORS, type ErrorCode } from "../../base/errors.ts";
import { integer, matching, moment, said, text } from "../../base/schema.ts";
import { IMAGE_URL_MAX } from "../limits.ts";

const count = integer(0);
const time = said(moment, "ISO 8601, UTC");

/** LIMIT: characters of names that people give. */
const NAME_MAX = 64;
const name = matching(
  /^[A-Za-z0-9._-]{1,64}$/,
  `A name is 1 to ${NAME_MAX} letters, digits, dots, dashes and underscores`,
);

export const outcomes = said(
  v.object({ copied: count, zeroed: count, continued: count, poisoned: count, woken: count }),
  "How faults ended: each in exactly one of these",
);

export const latency = said(v.object({ p50: v.number(), p99: v.number(), max: v.number() }), "Microseconds");

export const away = said(
  v.object({ read: count, fetched: count, joined: count, ahead: count, aheadMet: count }),
  "Faults whose bytes were not at hand, and units asked for ahead",
);

export const statistics = said(
  v.object({
    faults: count,
    outcomes,
    away,
    waiting: said(count, "Faults that wait for their bytes now"),
    bytesInstalled: count,
    bytesZeroed: count,
    bytesReplayed: said(count, "Installed ahead of the guest, from a working set"),
    events: said(count, "Messages other than faults: what the guest has given away, moved or unmapped"),
    retries: said(count, "Fills that the kernel put off because an event was pending"),
    latencyUs: latency,
  }),
  "Since the present pager serves the guest",
);

export const region = v.object({ start: count, byteLength: count, imageOffset: count, pageSize: count });

export const guestState = v.picklist(["serving", "draining"]);

export const guest = v.object({
  id: v.string(),
  name: v.optional(v.string()),
  image: v.string(),
  state: guestState,
  pid: count,
  uid: count,
  gid: count,
  since: time,
  handOverMs: v.number(),
  pagers: said(count, "Pagers that have served it so far; more than 1: it has outlived one"),
  byteLength: count,
  residentBytes: count,
  statistics,
});

export const guestDetails = said(
  v.object({ ...guest.entries, regions: v.pipe(v.array(region), v.readonly()) }),
  "A guest with its regions",
);

export const expectedGuest = v.object({
  id: v.string(),
  name: v.optional(v.string()),
  image: v.string(),
  socket: said(v.string(), "Where it has to connect: Firecracker's backend_path"),
  until: time,
});

export const ticket = v.strictObject({
  image: said(text(1, IMAGE_URL_MAX), "Name of an image that is served, or a URL"),
  name: v.optional(name),
  pid: v.optional(said(integer(1), "Only this process may use it")),
  uid: v.optional(said(count, "Only this user may use it: the socket is given to it")),
  gid: v.optional(count),
  path: v.optional(
    said(
      matching(/^\/[^\0]{1,106}$/, "A socket's path is absolute and has at most 107 characters"),
      "Where its socket is to be, such as in the guest's jail",
    ),
  ),
  replay: v.optional(
    said(v.union([v.boolean(), text(1, NAME_MAX)]), "Working set to replay: its name, or false for none"),
  ),
  withinMs: v.optional(said(integer(1, 86_400_000), "Default: a minute")),
});

export const imageState = v.picklist(["cold", "warming", "warm", "failed"]);

export const image = v.object({
  name: v.string(),
  url: said(v.string(), "Where its bytes are"),
  socket: v.string(),
  state: imageState,
  byteLength: v.optional(count),
  workingSets: v.optional(v.pipe(v.array(v.string()), v.readonly())),
  error: v.optional(v.string()),
  guests: count,
});

export const newImage = v.strictObject({
  name,
  url: text(1, IMAGE_URL_MAX),
  kind: v.optional(v.picklist(["image", "raw"])),
  digest: v.optional(said(matching(/^[0-9a-f]{64}$/), "SHA-256 of the manifest that it must have")),
  deadlineMs: v.optional(said(integer(1, 600_000), "How long a fault may wait for its bytes")),
  atDeadline: v.optional(v.picklist(["poison", "kill", "report"])),
  warm: v.optional(said(v.boolean(), "Opened before the first guest comes. Default true")),
});

export const limits = v.strictObject({
  guestsMax: said(integer(0, 100_000), "Guests at once"),
  connectionsMax: said(integer(1, 10_000), "Connections that have not handed over yet"),
  messageBytesMax: said(integer(1, 2 ** 20), "Bytes of a hand-over"),
  regionsMax: integer(1, 4096),
  guestBytesMax: said(integer(1, 2 ** 47), "Bytes of all regions of a guest"),
  handOverMs: said(integer(1, 600_000), "From the connection to the last byte of its hand-over"),
});

export const someLimits = v.partial(limits);

const counts = v.record(v.string(), count);

export const counters = v.object({
  connections: count,
  handOvers: count,
  refused: said(counts, "By the code of the error"),
  ended: said(counts, "By reason"),
  takeovers: said(count, "Pagers that took over from one that had ended"),
  keepers: said(count, "Keepers that were started after the first one"),
});

export const health = v.object({
  ready: v.boolean(),
  why: v.optional(said(v.string(), "Why it is not ready")),
  version: v.string(),
  pid: count,
  keeperPid: count,
  sparePid: v.optional(count),
  since: said(time, "When the present pager took over"),
  serverSince: time,
  guests: count,
  expected: count,
  images: count,
  counters,
});

export const problem = said(
  v.object({
    error: v.object({
      code: v.picklist(Object.keys(ERRORS) as ErrorCode[]),
      message: v.string(),
      hint: v.string(),
    }),
  }),
  "Match on the code, which never changes its meaning",
);

export type Guest = v.InferOutput<typeof guest>;
export type GuestDetails = v.InferOutput<typeof guestDetails>;
export type Image = v.InferOutput<typeof image>;
export type Health = v.InferOutput<typeof health>;
