// What random programs are kept out of, and why: where Linux 6.18 gives no order or shows chance, so that two runs on
// the kernel itself may differ, and where it does what nobody can compare. Each has its rule in rules.ts or where
// the step is resolved; `npm run differential -- --against kernel` finds those that are missing.

export interface Corner {
  readonly kernel: string;
  /** What is not done. */
  readonly kept: string;
  readonly because: string;
}

export const CORNERS: readonly Corner[] = [
  {
    kernel: "any",
    kept: "nothing, but it is counted apart: which neighbours fault-around maps",
    because:
      "filemap_map_pages() only tries a page's lock and leaves out what is locked for a moment (here probably by DAMON); not seen twice",
  },
  {
    kernel: "6.18",
    kept: "MADV_GUARD_INSTALL over memory of an object",
    because:
      "over the uffd-wp mark of an empty page the kernel zaps, finds the mark that zapping leaves, and begins again for ever",
  },
  {
    kernel: "any",
    kept: "SIGUSR1 for a thread whose system call waits for a page, or may do so before it ends",
    because: "the signal cannot be delivered, so the fault is raised again and again without rest",
  },
  {
    kernel: "any",
    kept: "reading single messages after several waiters were woken at once",
    because: "they fault again in any order; all messages are taken and compared sorted",
  },
  {
    kernel: "any",
    kept: "reading more than one message while somebody waits for its event to be read",
    because:
      "it goes on as soon as the event is taken, and may raise the next one before the read returns, or after",
  },
  {
    kernel: "any",
    kept: "UNREGISTER, close and kill while two threads wait; WAKE while two wait in shared objects",
    because:
      "they fill their pages in any order: which neighbours fault-around maps, and what a private copy holds, depends on it",
  },
  {
    kernel: "any",
    kept: "a writer and a COPY that takes its bytes from the same place, both waiting",
    because: "the copy is made before the write or after it",
  },
  {
    kernel: "any",
    kept: "two readers of one userfaultfd, both waiting",
    because: "either may get the message",
  },
  {
    kernel: "any",
    kept: "changing an address space while a thread waits for its event to be read",
    because: "what it changes and what the waiting call has still to do have no order",
  },
  {
    kernel: "any",
    kept: "two threads of a program that write the same byte",
    because: "each has bytes of its own in every page",
  },
  {
    kernel: "any",
    kept: "the page tables of huge pages that were never touched",
    because: "a scan tells whether a table exists, which depends on what lived near it before",
  },
];
