// The keeper's process. Its thread waits in one system call and runs no event loop; signals are for those who serve.

import { FIRST_LINK, SECOND_LINK } from "./birth.ts";
import { report } from "./front-pipe.ts";
import { Keeper } from "./keeper.ts";
import { step } from "./step.ts";

for (const signal of ["SIGTERM", "SIGINT", "SIGHUP"] as const) process.on(signal, () => undefined);
step("keeper-born");
report({ event: "keeper", pid: process.pid });
const [folder = ".", spare] = process.argv.slice(2);
process.exit(new Keeper(folder, FIRST_LINK, spare === undefined ? undefined : SECOND_LINK).run());
