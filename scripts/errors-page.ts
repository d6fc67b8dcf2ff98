// Writes docs/errors.md from the catalogue: `node dist/scripts/errors-page.js`. A test holds the page to it.

import { writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { ERRORS, EXIT_CODE } from "../src/base/errors.ts";

/** What an errno of an operation means. Measured on Linux 6.18; the conformance cases hold both systems to it. */
const ERRNOS: readonly (readonly [operations: string, errno: string, meaning: string])[] = [
  [
    "userfaultfd",
    "EPERM",
    "Without USER_MODE_ONLY it needs CAP_SYS_PTRACE or vm.unprivileged_userfaultfd=1; or seccomp",
  ],
  ["userfaultfd", "EINVAL", "Unknown flags"],
  ["userfaultfd", "EMFILE, ENFILE", "No descriptor is left in the process, in the system"],
  ["userfaultfd", "ENOSYS", "The kernel was built without it, or a filter hides it"],
  [
    "open /dev/userfaultfd",
    "EACCES, ENOENT",
    "The file's permissions; a kernel before 6.1 or a container without the device",
  ],
  [
    "UFFDIO_API",
    "EINVAL",
    "Another API version, unknown features, or the handshake has been done on this descriptor",
  ],
  ["UFFDIO_API", "EPERM", "EVENT_FORK needs CAP_SYS_PTRACE"],
  [
    "any ioctl",
    "EINVAL",
    "No handshake yet, a command that the kernel does not have, or a range that is not made of whole pages of user space",
  ],
  ["any ioctl", "EFAULT", "The argument cannot be read or written"],
  [
    "UFFDIO_REGISTER",
    "EINVAL",
    "No mapping there, a kind of memory that cannot have this mode, or a huge page cut in two",
  ],
  ["UFFDIO_REGISTER", "EBUSY", "Another userfaultfd has it"],
  ["UFFDIO_REGISTER", "EPERM", "A shared mapping of a file that was opened read-only"],
  ["UFFDIO_REGISTER, UFFDIO_UNREGISTER", "ENOMEM", "The process has ended"],
  [
    "UFFDIO_UNREGISTER",
    "EINVAL",
    "No mapping there, another userfaultfd's, or a kind of memory that cannot be registered",
  ],
  [
    "COPY, ZEROPAGE, CONTINUE, POISON, MOVE",
    "EAGAIN",
    "An event waits to be read first; or it stopped after some pages: go on from there",
  ],
  ["COPY, ZEROPAGE, CONTINUE, POISON", "ENOENT", "Not inside one registered mapping"],
  ["COPY, ZEROPAGE, CONTINUE, POISON, WRITEPROTECT", "ESRCH", "The process has ended"],
  ["COPY, ZEROPAGE, POISON, MOVE", "EEXIST", "The page has content; waiting threads were not woken"],
  ["CONTINUE", "EEXIST", "The page is mapped"],
  ["COPY", "EFAULT", "The source cannot be read, or the page lies beyond the end of its memory object"],
  ["ZEROPAGE", "EFAULT", "The page lies beyond the end of its memory object"],
  ["ZEROPAGE", "EINVAL", "Huge pages of hugetlb cannot be filled so"],
  ["CONTINUE", "EFAULT", "The page cache has no such page"],
  [
    "COPY, CONTINUE",
    "EINVAL",
    "Write-protected where write protection is not registered; private anonymous memory (CONTINUE); part of a huge page",
  ],
  ["COPY, ZEROPAGE", "ENOMEM", "No memory, or no huge page is left"],
  ["MOVE", "ENOENT", "No mapping at one of the two, or a source page is empty and holes were not allowed"],
  ["MOVE", "EBUSY", "A source page is shared with a forked process, or pinned"],
  ["MOVE", "EFAULT", "A source page is poisoned"],
  [
    "MOVE",
    "EINVAL",
    "Shared or huge memory, mappings that differ, not registered here, or called by another process",
  ],
  [
    "WRITEPROTECT",
    "ENOENT",
    "No mapping registered for write protection; those before the first such one are changed",
  ],
  ["WRITEPROTECT", "EAGAIN", "An event waits to be read first"],
  ["read", "EAGAIN", "No message is there (non-blocking)"],
  ["read", "EINVAL", "No handshake yet, or less room than one message"],
  ["read", "EMFILE", "No descriptor for a forked process; the event stays"],
  ["mmap", "ENOMEM", "No memory, no huge page in the pool, or more mappings than vm.max_map_count"],
  ["mmap", "EEXIST", "Something is mapped at the address that was asked for"],
  [
    "PAGEMAP_SCAN",
    "EPERM",
    "Asked to check (CHECK_WPASYNC), it met memory that is not registered for write protection with WP_ASYNC",
  ],
  ["PAGEMAP_SCAN", "ENOTTY", "The kernel is older than 6.7"],
];

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
    "## What an errno means",
    "",
    "As Linux 6.18 answers; the fills (COPY, ZEROPAGE, CONTINUE, POISON, MOVE) return some of them as a result instead of",
    "throwing. The order in which the kernel looks is that of the conformance cases.",
    "",
    "| operation | errno | why |",
    "|---|---|---|",
    ...ERRNOS.map(([operations, errno, meaning]) => `| ${operations} | ${errno} | ${meaning} |`),
    "",
  ].join("\n");
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  writeFileSync(fileURLToPath(new URL("../../docs/errors.md", import.meta.url)), errorsPage());
}
