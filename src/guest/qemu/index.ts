export * from "./return-path.ts";
export type * from "./stream-event.ts";
export * from "./stream-format.ts";
export * from "./stream-reader.ts";
export * from "./stream-writer.ts";
