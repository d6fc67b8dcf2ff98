// A guest's life as the page and the report draw it: columns of time, each with what was installed where, how long
// faults took, and what waited.

import * as v from "valibot";
import { integer, moment, said } from "../../base/schema.ts";

const count = integer(0);
const positive = v.pipe(v.number(), v.minValue(0));

/** Parts of a guest's memory that a column tells apart. */
export const HEAT_CELLS = 64;
/** Parts of a guest's memory in a residency map. */
export const MAP_CELLS = 1024;

export const column = v.object({
  startMs: said(positive, "Since the guest was handed over"),
  ms: said(positive, "How long this column lasts"),
  faults: count,
  bytesInstalled: count,
  bytesReplayed: count,
  residentBytes: said(count, "At its end"),
  heat: said(
    v.pipe(v.array(count), v.readonly()),
    `Pages that became resident, in each ${HEAT_CELLS}th of the memory`,
  ),
  latencyUs: v.optional(
    said(v.object({ p50: v.number(), p99: v.number(), max: v.number() }), "If there were faults"),
  ),
  waiting: said(count, "Faults that waited for their bytes, at most"),
});

export const happening = said(
  v.object({ atMs: v.number(), kind: v.string(), text: v.string() }),
  "Something that happened to the guest",
);

export const history = v.object({
  id: v.string(),
  name: v.optional(v.string()),
  image: v.string(),
  pid: integer(0),
  since: moment,
  byteLength: count,
  pageSize: count,
  ended: v.optional(v.object({ reason: v.string(), detail: v.optional(v.string()), atMs: v.number() })),
  columns: v.pipe(v.array(column), v.readonly()),
  map: said(
    v.pipe(v.array(v.number()), v.readonly()),
    `Share that is resident, 0 to 1, of each ${MAP_CELLS}th of the memory`,
  ),
  happenings: v.pipe(v.array(happening), v.readonly()),
});

export type HistoryColumn = v.InferOutput<typeof column>;
export type Happening = v.InferOutput<typeof happening>;
export type History = v.InferOutput<typeof history>;
