export type { Law } from "./law.ts";
export { objectStoreLaws, type StoreSubject } from "./object-store-laws.ts";
export { pageSourceLaws, type SourceSubject } from "./page-source-laws.ts";
