// minorfault: memory whose pages arrive when they are first touched. The subpaths have the rest: minorfault/abi,
// minorfault/uffd, minorfault/software, minorfault/pager, minorfault/testing.

export { ERRORS, type ErrorCode, type ErrorKind, EXIT_CODE, MinorfaultError } from "./base/errors.ts";
export * from "./guest/array-buffer/index.ts";
export { type GuestHost, kernelRefusal, openGuestHost } from "./guest/system.ts";
export * from "./guest/wasm/index.ts";
export * from "./pager/index.ts";
export * from "./uffd/contract.ts";
export { PagedMemory } from "./uffd/software/index.ts";
