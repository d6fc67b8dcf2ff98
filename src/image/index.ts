export * from "./add-working-set.ts";
export { buildImage, checkAbsent } from "./build-image.ts";
export type * from "./build-options.ts";
export * from "./copy-image.ts";
export * from "./diff-images.ts";
export * from "./export-image.ts";
export type * from "./image.ts";
export { CHUNK_BYTES_DEFAULT, CHUNK_BYTES_MAX, CHUNK_BYTES_MIN } from "./limits.ts";
export * from "./list-images.ts";
export type { Manifest } from "./manifest.ts";
export { OpenedImage, type OpenOptions, openImage, openImageIn, type ReadFirst } from "./open-image.ts";
export {
  GRACE_MS,
  type PruneOptions,
  type PruneProgress,
  type PruneReport,
  pruneStore,
} from "./prune-store.ts";
export { openRawFile, type RawFile } from "./raw-file.ts";
export { type RepackOptions, type RepackReport, repackStore } from "./repack-store.ts";
export * from "./verify-image.ts";
