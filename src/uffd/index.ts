export * from "./address-space.ts";
export * from "./contract.ts";
export * from "./hand-over.ts";
export * from "./ioctls.ts";
export * from "./open.ts";
export * from "./userfaultfd.ts";
export * from "./written.ts";
