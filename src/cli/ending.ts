// How a command that works for a while ends when it is told to: once gracefully, the second time at once.

const SIGNALS = ["SIGINT", "SIGTERM", "SIGHUP"] as const;
export type EndingSignal = (typeof SIGNALS)[number];

export interface Ending {
  readonly signal: AbortSignal;
  /** The signal that came, if one did. */
  readonly by: EndingSignal | undefined;
  close(): void;
}

/** An abort signal that the first SIGINT, SIGTERM or SIGHUP raises; the second one ends the process as usual. */
export function endOnSignals(): Ending {
  const controller = new AbortController();
  let by: EndingSignal | undefined;
  const listeners = SIGNALS.map((name) => {
    const listener = () => {
      by ??= name;
      controller.abort();
    };
    process.once(name, listener);
    return () => process.removeListener(name, listener);
  });
  return {
    signal: controller.signal,
    get by() {
      return by;
    },
    close: () => {
      for (const remove of listeners) remove();
    },
  };
}
