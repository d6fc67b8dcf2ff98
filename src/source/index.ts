export type { CacheCounters } from "./cache-totals.ts";
export type { CachePlace } from "./cached-store.ts";
export { type CacheOptions, CachingSource } from "./caching-source.ts";
export { type CoalesceOptions, CoalescingSource } from "./coalescing-source.ts";
export {
  type Codec,
  type CodecImplementation,
  codec,
  compress,
  DECODED_BYTES_MAX,
  decompress,
  decompressInto,
  LEVEL_DEFAULT,
  LEVEL_MAX,
  LEVEL_MIN,
} from "./codec.ts";
export { CountingSource, type SourceCounters } from "./counting-source.ts";
export { CACHE_BYTES_MIN, DiskCache, type DiskCacheOptions } from "./disk-cache.ts";
export { FileSource } from "./file-source.ts";
export { FolderStore } from "./folder-store.ts";
export { type HardenOptions, harden } from "./hardened-source.ts";
export { HardenedStore, hardenStore } from "./hardened-store.ts";
export { HedgedSource, type HedgeOptions } from "./hedged-source.ts";
export type { HttpOptions } from "./http-store.ts";
export { LayeredSource } from "./layered-source.ts";
export { Lanes, type LanesOptions, LimitedSource } from "./limited-source.ts";
export { MemorySource } from "./memory-source.ts";
export {
  checkKey,
  checkPrefix,
  KEY_BYTES_MAX,
  KEY_NAME_BYTES_MAX,
  type ListedObject,
  type ObjectStore,
  type PutOptions,
  type Upload,
} from "./object-store.ts";
export { openSource, openStore, type StoreOptions, splitImageUrl } from "./open-store.ts";
export { checkRead, type PageSource } from "./page-source.ts";
export { RetryingSource, type RetryOptions } from "./retrying-source.ts";
export type { S3Options } from "./s3-client.ts";
export { systemTimers, type Timers } from "./timers.ts";
export { ZeroSource } from "./zero-source.ts";
