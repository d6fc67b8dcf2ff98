export * from "./host.ts";
export * from "./uses.ts";
