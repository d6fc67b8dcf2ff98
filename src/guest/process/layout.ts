// Where things are in a bare process, and in the memory that we share with it.
//
//   its address space                       the control file (a memfd), mapped there and here
//
//   TEXT     the program, read and execute   0        slot 0: the first process's control thread
//   CONTROL  the control file, shared        128 KiB  slot 1: another thread, or a forked child's
//   ...      nothing else but the stack and  ...
//            the vDSO that exec brings       64 MiB   shares: what `share` hands out
//
// The control file is shared memory, so fork does not copy it: parent and children, all driven from here, have it
// at the same address. It is never registered with a userfaultfd, so nothing in it ever waits.
//
//   one slot
//   0 ─ 0x1000   the command (fields below)     0x1000 ─ 0x8000    stack, growing down
//                                               0x10000 ─ 0x20000  scratch, for system calls' arguments

/** Far from everything that the kernel places by itself, and from what tests map at fixed addresses. */
export const TEXT_ADDRESS = 0x5000_0000_0000;
export const CONTROL_ADDRESS = 0x5100_0000_0000;
/** Sparse: only what is touched exists. */
export const CONTROL_BYTES: number = 2 ** 38;

export const SLOT_BYTES = 0x20000;
/** LIMIT: threads and processes of one family (a process and those forked from it) at a time. */
export const SLOTS_MAX = 512;
export const STACK_TOP = 0x8000;
export const SCRATCH_OFFSET = 0x10000;
export const SCRATCH_BYTES = 0x10000;
export const SHARES_OFFSET: number = SLOT_BYTES * SLOTS_MAX;

/** Fields of a slot: byte offsets. The thread reads those marked <, and writes those marked >. */
export const FIELD = {
  /** < 32 bits: the number of the present command; a futex that the thread waits on while it equals DONE. */
  COMMAND: 0,
  /** > 32 bits: the number of the last command that has ended; a futex that we wait on. */
  DONE: 4,
  /** < Address of the code that does it. */
  ENTRY: 8,
  /** < Six arguments of 8 bytes. */
  ARGUMENTS: 16,
  /** < System call number. */
  NUMBER: 64,
  /** > What came out. */
  RESULT: 72,
  /** > 32 bits each: the signal that ended it, or 0, and its si_code. */
  SIGNAL: 80,
  SIGNAL_CODE: 84,
  /** > si_addr. */
  SIGNAL_ADDRESS: 88,
  /** > 32 bits: how many SIGUSR1 were caught. */
  SIGNALS_HANDLED: 96,
  /** < 32 bits: our process id; whoever finds another parent ends itself. */
  OWNER: 100,
  /** > Pages that the present walk has visited. */
  PROGRESS: 104,
} as const;

/** Bytes of them all. */
export const FIELDS_BYTES = 112;

/** Address of a slot in the bare process. */
export function slotAddress(index: number): number {
  return CONTROL_ADDRESS + index * SLOT_BYTES;
}
