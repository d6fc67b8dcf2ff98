export {
  type Codec,
  type CodecImplementation,
  codec,
  compress,
  DECODED_BYTES_MAX,
  decompress,
  LEVEL_DEFAULT,
  LEVEL_MAX,
  LEVEL_MIN,
} from "./codec.ts";
export { FileSource } from "./file-source.ts";
export { FolderStore } from "./folder-store.ts";
export { MemorySource } from "./memory-source.ts";
export {
  checkKey,
  checkPrefix,
  KEY_BYTES_MAX,
  KEY_NAME_BYTES_MAX,
  type ListedObject,
  type ObjectStore,
  type PutOptions,
} from "./object-store.ts";
export { openSource, openStore, splitImageUrl } from "./open-store.ts";
export { checkRead, type PageSource } from "./page-source.ts";
export { ZeroSource } from "./zero-source.ts";
