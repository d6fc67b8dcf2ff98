export * from "./catalogue.ts";
export * from "./errno.ts";
export * from "./ioc.ts";
export * from "./memory.ts";
export * from "./message.ts";
export * from "./structs.ts";
export * from "./system.ts";
export * from "./userfaultfd.ts";
