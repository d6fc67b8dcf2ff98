// Where guests look for it; it lives in base because the pager's chains of system calls are listings too.
export { MachineCode } from "../base/machine-code.ts";
