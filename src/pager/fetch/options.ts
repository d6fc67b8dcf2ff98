// What users say about the source of a pager whose bytes have to be fetched.

/** Where the bytes are. It goes to another thread, so it is plain data. */
export type SourceDescriptor =
  | {
      /** An image (`folder/name`, `https://…/name`, `s3://bucket/name`), or a raw file or object as it is. */
      readonly url: string;
      /** Default: an image if there is one of this name, else a raw object. */
      readonly kind?: "image" | "raw";
      /** SHA-256 of the image's manifest that it must be. */
      readonly digest?: string;
    }
  | {
      /** A module (its URL) whose export `openSource(argument)` gives a PageSource. */
      readonly module: string;
      readonly argument?: unknown;
    };

export interface FetchOptions {
  /** How long a fault may wait for its bytes. Default 1000. */
  readonly deadlineMs?: number;
  /**
   * What then: `poison` the page (default), so that its thread gets SIGBUS; `kill` the guest (another process, by its
   * pid); or `report` it, and go on waiting.
   */
  readonly atDeadline?: "poison" | "kill" | "report";
  /** Fetches at once. Default 16. */
  readonly fetchesMax?: number;
  /** The working set to replay ahead of the guest: its name, true (default) for the image's first, false for none. */
  readonly replay?: boolean | string;
  /** Bytes a second that are fetched without a fault that waits for them. Default: no limit. */
  readonly backgroundBytesPerSecond?: number;
}

export type PagerSource = SourceDescriptor & FetchOptions;
