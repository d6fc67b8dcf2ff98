export * from "./build-image.ts";
export type * from "./build-options.ts";
export type * from "./image.ts";
export { type OpenOptions, openImage, openImageIn } from "./open-image.ts";
