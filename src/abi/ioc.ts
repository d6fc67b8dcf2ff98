// The number of an ioctl, as include/uapi/asm-generic/ioctl.h composes it:
//
//   31 30 29        16 15       8 7        0
//  ┌─────┬────────────┬──────────┬──────────┐
//  │ dir │    size    │   type   │    nr    │
//  └─────┴────────────┴──────────┴──────────┘
//
// "Read" and "write" are the user's: _IOR means that the kernel writes and the user reads.

export const IOC_NONE = 0;
export const IOC_WRITE = 1;
export const IOC_READ = 2;

/** The ioctl number for a direction (0 to 3), a type and number (0 to 255), and an argument size (bytes). */
export function ioc(direction: number, type: number, number: number, size: number): number {
  // `>>> 0` because a direction of 2 or 3 sets bit 31, and ioctl numbers are unsigned.
  return ((direction << 30) | (size << 16) | (type << 8) | number) >>> 0;
}
