export * from "./page-ledger.ts";
export * from "./return-path.ts";
export type * from "./source-contract.ts";
export * from "./source-machine.ts";
export type * from "./stream-event.ts";
export * from "./stream-format.ts";
export * from "./stream-reader.ts";
export * from "./stream-writer.ts";
