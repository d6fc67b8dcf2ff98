export * from "./options.ts";
export * from "./pager.ts";
