// A guest's life as the page and the report draw it: columns of time, each with what was installed where, how long
// faults took, and what waited.

import { z } from "zod";

const count = z.int().min(0);

/** Parts of a guest's memory that a column tells apart. */
export const HEAT_CELLS = 64;
/** Parts of a guest's memory in a residency map. */
export const MAP_CELLS = 1024;

export const column = z
  .object({
    startMs: z.number().min(0).describe("Since the guest was handed over"),
    ms: z.number().min(0).describe("How long this column lasts"),
    faults: count,
    bytesInstalled: count,
    bytesReplayed: count,
    residentBytes: count.describe("At its end"),
    heat: z
      .array(count)
      .readonly()
      .describe(`Pages that became resident, in each ${HEAT_CELLS}th of the memory`),
    latencyUs: z
      .object({ p50: z.number(), p99: z.number(), max: z.number() })
      .optional()
      .describe("If there were faults"),
    waiting: count.describe("Faults that waited for their bytes, at most"),
  })
  .meta({ id: "HistoryColumn" });

export const happening = z
  .object({ atMs: z.number(), kind: z.string(), text: z.string() })
  .meta({ id: "Happening", description: "Something that happened to the guest" });

export const history = z
  .object({
    id: z.string(),
    name: z.string().optional(),
    image: z.string(),
    pid: z.int(),
    since: z.iso.datetime(),
    byteLength: count,
    pageSize: count,
    ended: z.object({ reason: z.string(), detail: z.string().optional(), atMs: z.number() }).optional(),
    columns: z.array(column).readonly(),
    map: z
      .array(z.number())
      .readonly()
      .describe(`Share that is resident, 0 to 1, of each ${MAP_CELLS}th of the memory`),
    happenings: z.array(happening).readonly(),
  })
  .meta({ id: "History" });

export type HistoryColumn = z.infer<typeof column>;
export type Happening = z.infer<typeof happening>;
export type History = z.infer<typeof history>;
