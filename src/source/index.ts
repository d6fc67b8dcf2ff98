export {
  checkKey,
  checkPrefix,
  KEY_BYTES_MAX,
  KEY_NAME_BYTES_MAX,
  type ListedObject,
  type ObjectStore,
  type PutOptions,
} from "./object-store.ts";
export { checkRead, type PageSource } from "./page-source.ts";
