// Writes docs/errors.md from the catalogue: `node dist/scripts/errors-page.js`. A test holds the page to it.

import { writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { ERRORS, EXIT_CODE } from "../src/base/errors.ts";

export function errorsPage(): string {
  const rows = Object.entries(ERRORS).map(
    ([code, { kind, meaning, hint }]) =>
      `| \`${code}\` | ${kind} | ${EXIT_CODE[kind]} | ${meaning} | ${hint} |`,
  );
  return [
    "# Errors",
    "",
    "Every error that minorfault throws on purpose is a `MinorfaultError` with one of these codes. Match on `code`: it",
    "never changes its meaning, the message may. `ERR_SYSCALL` carries `errno`, `operation` and, where there is one,",
    "`address`. The exit code is that of the command line. This page is made by `node dist/scripts/errors-page.js`.",
    "",
    "| code | kind | exit | what it means | what to do next |",
    "|---|---|---|---|---|",
    ...rows,
    "",
  ].join("\n");
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  writeFileSync(fileURLToPath(new URL("../../docs/errors.md", import.meta.url)), errorsPage());
}
