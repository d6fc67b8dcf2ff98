// What must not outlive a benchmark, however that ends: also by a signal, as whoever limits its time sends one.

const undone = new Set<() => void>();

process.on("exit", () => {
  for (const undo of undone) undo();
});

const NUMBERS = { SIGHUP: 1, SIGINT: 2, SIGTERM: 15 } as const;
for (const [name, number] of Object.entries(NUMBERS)) {
  // Node's own answer to a signal passes over all who listen for the end.
  process.once(name, () => process.exit(128 + number));
}

/** Has something done when this process ends; answers how to forget it. It may not wait for anything. */
export function whenLeaving(undo: () => void): () => void {
  undone.add(undo);
  return () => undone.delete(undo);
}
