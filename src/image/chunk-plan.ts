// Which chunks a build looks at, in the order of the flat space, and where their bytes come from.

import { MinorfaultError } from "../base/errors.ts";
import { type Range, roundUp } from "../base/range.ts";
import type { PageSource } from "../source/page-source.ts";
import type { BuildRegion } from "./build-options.ts";
import type { ManifestRegion } from "./manifest.ts";
import { fill } from "./pack-reader.ts";

/** Chunks of one region that follow one another. */
export interface ChunkRun {
  readonly first: number;
  readonly until: number;
  /** Undefined: they are zeros, and known to be. */
  readonly source: PageSource | undefined;
  /** Flat offset of the source's first byte. */
  readonly offset: number;
}

/** All runs, none of which overlap. With `hasParent` the zeros between extents are told as well. */
export function planChunks(
  regions: readonly BuildRegion[],
  layout: readonly ManifestRegion[],
  chunkBytes: number,
  hasParent: boolean,
): ChunkRun[] {
  return regions.flatMap((region, index) => {
    const { offset, byteLength } = layout[index]!;
    const first = offset / chunkBytes;
    const until = first + Math.ceil(byteLength / chunkBytes);
    const run = (from: number, to: number, source?: PageSource): ChunkRun => ({
      first: first + from,
      until: first + to,
      source,
      offset,
    });
    const whole = [{ start: 0, until: region.source.byteLength }];
    const ranges = (hasParent ? region.changed : undefined) ?? region.extents ?? whole;
    const runs = chunkRanges(ranges, region, chunkBytes);
    const read = runs.map(({ start, until }) => run(start, until, region.source));
    if (!hasParent || region.changed !== undefined) return read;
    const gaps = gapsOf(runs, until - first).map(({ start, until }) => run(start, until));
    return [...read, ...gaps].sort((a, b) => a.first - b.first);
  });
}

/**
 * Reads chunk `first` and those that follow into the target; what the source does not have is zeros. A chunk that gets a 1
 * in `zeros` is nothing but zeros, whatever the target holds.
 */
export async function readChunks(
  run: ChunkRun,
  first: number,
  target: Uint8Array,
  chunkBytes: number,
  zeros: Uint8Array,
  signal?: AbortSignal,
): Promise<void> {
  const { source, offset } = run;
  const at = first * chunkBytes - offset;
  const length = source === undefined ? 0 : Math.max(0, Math.min(target.byteLength, source.byteLength - at));
  if (length < target.byteLength) target.fill(0, length);
  if (source === undefined || length === 0) return;
  const part = target.subarray(0, length);
  if (source.readSparse === undefined) await fill(source, at, part, signal);
  else await source.readSparse(at, part, chunkBytes, zeros, signal);
}

/** Ranges of bytes as sorted ranges of chunks that neither touch nor overlap. */
function chunkRanges(ranges: Iterable<Range>, { name, source }: BuildRegion, chunkBytes: number): Range[] {
  const chunks = [...ranges]
    .filter(({ start, until }) => {
      if (!Number.isSafeInteger(start) || start < 0 || until > roundUp(source.byteLength, 2 ** 21)) {
        throw new MinorfaultError("ERR_OUT_OF_RANGE", `Bytes ${start} to ${until} are not in region ${name}`);
      }
      return start < Math.min(until, source.byteLength);
    })
    .map(({ start, until }) => ({
      start: Math.floor(start / chunkBytes),
      until: Math.ceil(Math.min(until, source.byteLength) / chunkBytes),
    }))
    .sort((a, b) => a.start - b.start);
  const merged: { start: number; until: number }[] = [];
  for (const range of chunks) {
    const last = merged[merged.length - 1];
    if (last === undefined || range.start > last.until) merged.push({ ...range });
    else last.until = Math.max(last.until, range.until);
  }
  return merged;
}

function gapsOf(ranges: readonly Range[], until: number): Range[] {
  const edges = [0, ...ranges.flatMap(({ start, until: end }) => [start, end]), until];
  const gaps: Range[] = [];
  for (let index = 0; index < edges.length; index += 2) {
    const gap = { start: edges[index]!, until: edges[index + 1]! };
    if (gap.start < gap.until) gaps.push(gap);
  }
  return gaps;
}
