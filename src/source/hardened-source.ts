// The wrappers in the order in which they make sense over a network, for those who want no more than that.
//
//   caching ── coalescing ── limited ── hedged ── retrying ── inner
//
// A hit costs no place among the requests; readers of one block share a request; a second request is made for a try
// that is slow, not for one that pauses between tries; retries count against the place they hold.

import { type CacheOptions, CachingSource } from "./caching-source.ts";
import { type CoalesceOptions, CoalescingSource } from "./coalescing-source.ts";
import type { DiskCache } from "./disk-cache.ts";
import { HedgedSource, type HedgeOptions } from "./hedged-source.ts";
import { type Lanes, type LanesOptions, LimitedSource } from "./limited-source.ts";
import type { PageSource } from "./page-source.ts";
import { RetryingSource, type RetryOptions } from "./retrying-source.ts";

export interface HardenOptions {
  readonly retry?: RetryOptions;
  /** False: no second requests. */
  readonly hedge?: HedgeOptions | false;
  readonly limit?: Lanes | LanesOptions;
  /** False: every read is a request of its own, of exactly its range. */
  readonly coalesce?: CoalesceOptions | false;
  readonly cache?: DiskCache;
  readonly caching?: CacheOptions;
}

export function harden(inner: PageSource, options: HardenOptions = {}): PageSource {
  let source: PageSource = new RetryingSource(inner, options.retry);
  if (options.hedge !== false) source = new HedgedSource(source, options.hedge);
  source = new LimitedSource(source, options.limit);
  if (options.coalesce !== false) source = new CoalescingSource(source, options.coalesce);
  if (options.cache !== undefined) source = new CachingSource(source, options.cache, options.caching);
  return source;
}
