// The errno values that the userfaultfd system answers with (include/uapi/asm-generic/errno*.h), x86-64 and arm64.

export const ERRNO = {
  EPERM: 1,
  ENOENT: 2,
  ESRCH: 3,
  EINTR: 4,
  EIO: 5,
  E2BIG: 7,
  EBADF: 9,
  ECHILD: 10,
  EAGAIN: 11,
  ENOMEM: 12,
  EACCES: 13,
  EFAULT: 14,
  EBUSY: 16,
  EEXIST: 17,
  ENODEV: 19,
  EINVAL: 22,
  ENFILE: 23,
  EMFILE: 24,
  ENOTTY: 25,
  ENOSPC: 28,
  ESPIPE: 29,
  EPIPE: 32,
  ENOSYS: 38,
  ENOPROTOOPT: 92,
  EOPNOTSUPP: 95,
  ECONNRESET: 104,
  ENOTCONN: 107,
  ETIMEDOUT: 110,
  ECONNREFUSED: 111,
  EHWPOISON: 133,
} as const;

export type ErrnoName = keyof typeof ERRNO;

const names = new Map<number, string>(Object.entries(ERRNO).map(([name, value]) => [value, name]));

/** "EINVAL" for 22 (or -22); "E999" for a number that is not in the table; "OK" for 0. */
export function errnoName(errno: number): string {
  if (errno === 0) return "OK";
  const value = Math.abs(errno);
  return names.get(value) ?? `E${value}`;
}
