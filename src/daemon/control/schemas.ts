// What the control API says and takes, once: requests are checked by these, answers are made to these, the OpenAPI
// document and the client's types come from them.
//
// Times are ISO 8601, lengths are bytes, addresses are numbers (user addresses stay below 2^53).

import { z } from "zod";
import { ERRORS, type ErrorCode } from "../../base/errors.ts";
import { IMAGE_URL_MAX } from "../limits.ts";

const count = z.int().min(0);
const time = z.iso.datetime().describe("ISO 8601, UTC");

/** LIMIT: characters of names that people give. */
const NAME_MAX = 64;
const name = z.string().regex(/^[A-Za-z0-9._-]{1,64}$/, {
  error: `A name is 1 to ${NAME_MAX} letters, digits, dots, dashes and underscores`,
});

export const outcomes = z
  .object({ copied: count, zeroed: count, continued: count, poisoned: count, woken: count })
  .meta({ id: "FaultOutcomes", description: "How faults ended: each in exactly one of these" });

const latency = z
  .object({ p50: z.number(), p99: z.number(), max: z.number() })
  .meta({ id: "Latency", description: "Microseconds" });

const away = z
  .object({ read: count, fetched: count, joined: count, ahead: count, aheadMet: count })
  .meta({ id: "AwayCounts", description: "Faults whose bytes were not at hand, and units asked for ahead" });

export const statistics = z
  .object({
    faults: count,
    outcomes,
    away,
    waiting: count.describe("Faults that wait for their bytes now"),
    bytesInstalled: count,
    bytesZeroed: count,
    bytesReplayed: count.describe("Installed ahead of the guest, from a working set"),
    events: count.describe("Messages other than faults: what the guest has given away, moved or unmapped"),
    retries: count.describe("Fills that the kernel put off because an event was pending"),
    latencyUs: latency,
  })
  .meta({ id: "Statistics", description: "Since the present pager serves the guest" });

const region = z
  .object({ start: count, byteLength: count, imageOffset: count, pageSize: count })
  .meta({ id: "Region" });

export const guestState = z.enum(["serving", "draining"]);

export const guest = z
  .object({
    id: z.string(),
    name: z.string().optional(),
    image: z.string(),
    state: guestState,
    pid: z.int(),
    uid: z.int(),
    gid: z.int(),
    since: time,
    handOverMs: z.number(),
    pagers: count.describe("Pagers that have served it so far; more than 1: it has outlived one"),
    byteLength: count,
    residentBytes: count,
    statistics,
  })
  .meta({ id: "Guest" });

export const guestDetails = guest
  .extend({ regions: z.array(region).readonly() })
  .meta({ id: "GuestDetails", description: "A guest with its regions" });

export const expectedGuest = z
  .object({
    id: z.string(),
    name: z.string().optional(),
    image: z.string(),
    socket: z.string().describe("Where it has to connect: Firecracker's backend_path"),
    until: time,
  })
  .meta({ id: "ExpectedGuest" });

export const ticket = z
  .strictObject({
    image: z.string().min(1).max(IMAGE_URL_MAX).describe("Name of an image that is served, or a URL"),
    name: name.optional(),
    pid: z.int().min(1).optional().describe("Only this process may use it"),
    uid: count.optional().describe("Only this user may use it: the socket is given to it"),
    gid: count.optional(),
    path: z
      .string()
      .regex(/^\/[^\0]{1,106}$/, { error: "A socket's path is absolute and has at most 107 characters" })
      .optional()
      .describe("Where its socket is to be, such as in the guest's jail"),
    replay: z
      .union([z.boolean(), z.string().min(1).max(NAME_MAX)])
      .optional()
      .describe("Working set to replay: its name, or false for none"),
    withinMs: z.int().min(1).max(86_400_000).optional().describe("Default: a minute"),
  })
  .meta({ id: "Ticket" });

export const imageState = z.enum(["cold", "warming", "warm", "failed"]);

export const image = z
  .object({
    name: z.string(),
    url: z.string().describe("Where its bytes are"),
    socket: z.string(),
    state: imageState,
    byteLength: count.optional(),
    workingSets: z.array(z.string()).readonly().optional(),
    error: z.string().optional(),
    guests: count,
  })
  .meta({ id: "Image" });

export const newImage = z
  .strictObject({
    name,
    url: z.string().min(1).max(IMAGE_URL_MAX),
    kind: z.enum(["image", "raw"]).optional(),
    digest: z
      .string()
      .regex(/^[0-9a-f]{64}$/)
      .optional()
      .describe("SHA-256 of the manifest that it must have"),
    deadlineMs: z.int().min(1).max(600_000).optional().describe("How long a fault may wait for its bytes"),
    atDeadline: z.enum(["poison", "kill", "report"]).optional(),
    warm: z.boolean().optional().describe("Opened before the first guest comes. Default true"),
  })
  .meta({ id: "NewImage" });

const limit = (max: number) => z.int().min(1).max(max);

export const limits = z
  .strictObject({
    guestsMax: z.int().min(0).max(100_000).describe("Guests at once"),
    connectionsMax: limit(10_000).describe("Connections that have not handed over yet"),
    messageBytesMax: limit(2 ** 20).describe("Bytes of a hand-over"),
    regionsMax: limit(4096),
    guestBytesMax: limit(2 ** 47).describe("Bytes of all regions of a guest"),
    handOverMs: limit(600_000).describe("From the connection to the last byte of its hand-over"),
  })
  .meta({ id: "Limits" });

export const someLimits = limits.partial().meta({ id: "SomeLimits" });

export const counters = z
  .object({
    connections: count,
    handOvers: count,
    refused: z.record(z.string(), count).describe("By the code of the error"),
    ended: z.record(z.string(), count).describe("By reason"),
    takeovers: count.describe("Pagers that took over from one that had ended"),
    keepers: count.describe("Keepers that were started after the first one"),
  })
  .meta({ id: "Counters" });

export const health = z
  .object({
    ready: z.boolean(),
    why: z.string().optional().describe("Why it is not ready"),
    version: z.string(),
    pid: z.int(),
    keeperPid: z.int(),
    sparePid: z.int().optional(),
    since: time.describe("When the present pager took over"),
    serverSince: time,
    guests: count,
    expected: count,
    images: count,
    counters,
  })
  .meta({ id: "Health" });

export const problem = z
  .object({
    error: z.object({
      code: z.enum(Object.keys(ERRORS) as [ErrorCode, ...ErrorCode[]]),
      message: z.string(),
      hint: z.string(),
    }),
  })
  .meta({ id: "Problem", description: "Match on the code, which never changes its meaning" });

export type Guest = z.infer<typeof guest>;
export type GuestDetails = z.infer<typeof guestDetails>;
export type Image = z.infer<typeof image>;
export type Health = z.infer<typeof health>;
