// The catalogue of errors: one class, one table. Match on `code`, which never changes its meaning.
//
// The kind says who reacts (the programmer, the operator, the pager itself) and gives the exit code of the
// command line. What the reader should do next is the `hint`.

export type ErrorKind = "usage" | "state" | "environment" | "kernel" | "source" | "protocol" | "bug";

/** Exit codes of the command line, by kind. 128 + n is kept for signals. */
export const EXIT_CODE: Readonly<Record<ErrorKind, number>> = {
  usage: 2,
  state: 1,
  environment: 3,
  kernel: 1,
  source: 4,
  protocol: 5,
  bug: 70,
};

interface Entry {
  readonly kind: ErrorKind;
  /** What it means, for the reference page. */
  readonly meaning: string;
  readonly hint: string;
}

/** Every error that minorfault throws on purpose. */
export const ERRORS = {
  ERR_BAD_ARGUMENT: {
    kind: "usage",
    meaning: "An argument has the wrong type or is not a number that can be used",
    hint: "Pass a value of the type that the message names",
  },
  ERR_UNALIGNED: {
    kind: "usage",
    meaning: "An address or a length is not a multiple of the page size",
    hint: "Round addresses down and lengths up to the page size of the mapping",
  },
  ERR_OUT_OF_RANGE: {
    kind: "usage",
    meaning: "A number lies outside the range that is allowed, or a range leaves the memory it belongs to",
    hint: "Compare the range in the message with the size of the memory",
  },
  ERR_BAD_CASE: {
    kind: "usage",
    meaning: "A conformance case cannot be parsed",
    hint: "docs/cases.md describes the language; the message names the line",
  },
  ERR_CLOSED: {
    kind: "state",
    meaning: "The object has been closed",
    hint: "Open a new one; closing twice is allowed, using it afterwards is not",
  },
  ERR_BUSY: {
    kind: "state",
    meaning:
      "What was asked for has to wait for something else that is under way, or its name or place is taken",
    hint: "Wait until what the message names has ended, or use another thread, name or place",
  },
  ERR_FAULT_PENDING: {
    kind: "state",
    meaning: "Memory was accessed synchronously and the page is not resident",
    hint: "Use the asynchronous read or write, or make the page resident first",
  },
  ERR_LIMIT: {
    kind: "state",
    meaning: "A named limit was reached",
    hint: "Raise the limit that the message names, or use less",
  },
  ERR_DEADLINE: {
    kind: "state",
    meaning: "Something did not finish before its deadline",
    hint: "The message says what was waited for; look there first",
  },
  ERR_HANDLER_FAILED: {
    kind: "state",
    meaning: "A fault handler threw; the page was poisoned so that the guest is told",
    hint: "The cause is attached; repair the page by discarding it and faulting again",
  },
  ERR_MEMORY_FAULT: {
    kind: "state",
    meaning: "An access ended in SIGBUS or SIGSEGV",
    hint: "The page is poisoned, protected, unmapped or beyond the end of its object",
  },
  ERR_UFFD_MISSING: {
    kind: "environment",
    meaning: "This host has no userfaultfd",
    hint: "Run `minorfault doctor`; the software implementation works everywhere",
  },
  ERR_UFFD_DENIED: {
    kind: "environment",
    meaning: "This process may not open a userfaultfd",
    hint: "Run `minorfault doctor`: it names the sysctl, the device permission or the capability to change",
  },
  ERR_FEATURE_MISSING: {
    kind: "environment",
    meaning: "The kernel does not have a feature that was asked for",
    hint: "Run `minorfault doctor` for what it has",
  },
  ERR_UNSUPPORTED_HOST: {
    kind: "environment",
    meaning: "This machine's platform or architecture cannot do what was asked",
    hint: "Run `minorfault doctor`; the software implementation works everywhere",
  },
  ERR_NATIVE_MISSING: {
    kind: "environment",
    meaning: "The koffi package could not be loaded",
    hint: "Install dependencies without omitting optional platform packages (npm ci)",
  },
  ERR_SYSCALL: {
    kind: "kernel",
    meaning: "The system refused a call; errno, operation and address are attached",
    hint: "docs/errors.md lists what each errno means for each operation",
  },
  ERR_BAD_MESSAGE: {
    kind: "protocol",
    meaning: "A message does not have the form that its protocol demands",
    hint: "Compare versions on both sides; the offset and the bytes are in the message",
  },
  ERR_STREAM_FEATURE: {
    kind: "protocol",
    meaning: "A migration stream of QEMU uses something that is not known or not supported here",
    hint: "Save the machine again without the capability that the message names; nothing of the stream was used",
  },
  ERR_MACHINE_DIFFERS: {
    kind: "usage",
    meaning:
      "A QEMU is another machine than the one that was saved: its type, its version, its memory or its devices",
    hint: "Start QEMU with the command line of the machine that was saved; nothing was sent to this one",
  },
  ERR_QEMU: {
    kind: "protocol",
    meaning: "QEMU refused a command or failed at it; its own words are in the message",
    hint: "QEMU's words say what it wants; its log on stderr may say more",
  },
  ERR_WRONG_BYTES: {
    kind: "source",
    meaning: "Bytes do not have the hash that they should have",
    hint: "The source or the memory that carried them is damaged; nothing was installed from it",
  },
  ERR_SOURCE_MISSING: {
    kind: "source",
    meaning: "The object, file or bucket is not there",
    hint: "Compare the name in the message with what the store lists",
  },
  ERR_SOURCE_CHANGED: {
    kind: "source",
    meaning: "The object was replaced or changed while it was being read",
    hint: "Open it again to read the new content; nothing of the two was mixed",
  },
  ERR_SOURCE_SHORT: {
    kind: "source",
    meaning: "The source ended, or answered, before all the bytes that were asked for had come",
    hint: "The object is truncated or the connection broke; reading again may help",
  },
  ERR_SOURCE_TOO_LONG: {
    kind: "source",
    meaning: "The source has, or sends, more bytes than were asked for or allowed; the rest was not read",
    hint: "Compare the limit in the message with the object",
  },
  ERR_SOURCE_RANGE_IGNORED: {
    kind: "source",
    meaning: "The server answered a range request with something other than that range",
    hint: "Use a server that honours ranges, or copy the object first",
  },
  ERR_SOURCE_DENIED: {
    kind: "source",
    meaning: "The file or server refused to let this process read or write",
    hint: "Check permissions and credentials; credentials are never part of a message",
  },
  ERR_SOURCE_TIMEOUT: {
    kind: "source",
    meaning: "The source did not answer in time",
    hint: "Raise the time limit in the message, or look at the network and the server",
  },
  ERR_SOURCE_CORRUPT: {
    kind: "source",
    meaning: "Stored bytes cannot be decoded, or decode to something other than was declared",
    hint: "The object is damaged or forged; nothing of it was used. Restore it from another copy",
  },
  ERR_SOURCE_UNREACHABLE: {
    kind: "source",
    meaning: "The source's host cannot be found or does not accept connections",
    hint: "Check the host and port in the message",
  },
  ERR_SOURCE_FAILED: {
    kind: "source",
    meaning: "The source answered with a failure of its own (a server's 5xx, a disk's EIO)",
    hint: "Look at the server's or the kernel's log; the status or errno is in the message",
  },
  ERR_STORE_URL: {
    kind: "usage",
    meaning: "A store's URL cannot be understood",
    hint: "Use a folder's path, file:///folder, https://host/folder or s3://bucket/prefix",
  },
  ERR_STORE_PATH: {
    kind: "usage",
    meaning: "A key leaves its store or is not one that every store can hold",
    hint: "Keys are relative, of plain names joined by /, none beginning with a dot",
  },
  ERR_STORE_EXISTS: {
    kind: "state",
    meaning: "The key is taken, and replacing it was not asked for",
    hint: "Somebody else wrote it first; use theirs or choose another key",
  },
  ERR_STORE_READ_ONLY: {
    kind: "usage",
    meaning: "This store can only be read",
    hint: "Write to a folder or a bucket, then serve that",
  },
  ERR_STORE_UNLISTED: {
    kind: "usage",
    meaning: "This store cannot list its objects",
    hint: "Plain HTTP has no listing: name the object, or list it where it is stored",
  },
  ERR_PACKAGE_MISSING: {
    kind: "environment",
    meaning: "An optional package that this needs is not installed",
    hint: "Install the package that the message names beside minorfault",
  },
  ERR_BAD_IMAGE: {
    kind: "source",
    meaning: "A manifest, an index or a pack of an image does not have the form that it must have",
    hint: "The image is damaged or forged; nothing was installed from it. Pull or build it again",
  },
  ERR_IMAGE_VERSION: {
    kind: "source",
    meaning: "The image was made by a newer minorfault and cannot be read by this one",
    hint: "Update minorfault, or build the image again",
  },
  ERR_BAD_HAND_OVER: {
    kind: "protocol",
    meaning: "A guest's hand-over to the page server is not what it must be",
    hint: "Nothing was done with its memory. The message names the field; docs/server.md shows the form",
  },
  ERR_NOT_ALLOWED: {
    kind: "protocol",
    meaning: "The policy of the page server does not let this peer have this image",
    hint: "The server's operator decides, by its policy; docs/server.md describes it",
  },
  ERR_DENIED: {
    kind: "protocol",
    meaning: "The control API does not let this request pass",
    hint: "Over TCP it needs the server's token and a loopback Host; docs/server.md shows how to pass them",
  },
  ERR_NO_SUCH: {
    kind: "usage",
    meaning: "The page server has no guest or no image of this name",
    hint: "`minorfault guests` and `minorfault server images` list what there is",
  },
  ERR_NO_SERVER: {
    kind: "environment",
    meaning: "No page server answers at this socket",
    hint: "Start one with `minorfault serve`, or name its socket",
  },
  ERR_BUG: {
    kind: "bug",
    meaning: "An assertion of minorfault itself failed",
    hint: "Please report it with the message and the output of `minorfault doctor --json`",
  },
} as const satisfies Record<string, Entry>;

export type ErrorCode = keyof typeof ERRORS;

export interface ErrorDetails {
  readonly cause?: unknown;
  /** Replaces the catalogue's hint where the place knows better. */
  readonly hint?: string;
  /** The kernel's answer, a positive errno. */
  readonly errno?: number;
  /** The system call or ioctl. */
  readonly operation?: string;
  /** Bytes. */
  readonly address?: number;
  /** Bytes. */
  readonly byteLength?: number;
  /** Whether the same request may go better another time: known where the error is born. */
  readonly retryable?: boolean;
}

/** An error of the catalogue. `code` is stable; the message is for people. */
export class MinorfaultError extends Error {
  readonly code: ErrorCode;
  readonly kind: ErrorKind;
  readonly hint: string;
  readonly errno: number | undefined;
  readonly operation: string | undefined;
  readonly address: number | undefined;
  readonly byteLength: number | undefined;
  readonly retryable: boolean;

  constructor(code: ErrorCode, message: string, details: ErrorDetails = {}) {
    super(message, details.cause === undefined ? undefined : { cause: details.cause });
    this.name = "MinorfaultError";
    this.code = code;
    this.kind = ERRORS[code].kind;
    this.hint = details.hint ?? ERRORS[code].hint;
    this.errno = details.errno;
    this.operation = details.operation;
    this.address = details.address;
    this.byteLength = details.byteLength;
    this.retryable = details.retryable ?? false;
  }

  /** Exit code of the command line for this error. */
  get exitCode(): number {
    return EXIT_CODE[this.kind];
  }
}

/** Throws ERR_BUG unless the condition holds: for what only our own mistake can make false. */
export function assert(condition: unknown, message: string): asserts condition {
  if (!condition) throw new MinorfaultError("ERR_BUG", message);
}

/** An address as it is printed everywhere: 16 hexadecimal digits. */
export function hex(address: number): string {
  return `0x${address.toString(16).padStart(16, "0")}`;
}
