// Writes an archive of the "newc" form of cpio, which is what the Linux kernel takes as its first file system
// (Documentation/driver-api/early-userspace/buffer-format.rst).

export interface ArchiveEntry {
  readonly path: string;
  readonly mode: number;
  readonly bytes?: Uint8Array;
}

export const MODE = { FOLDER: 0o040755, PROGRAM: 0o100755, FILE: 0o100644 } as const;

const TRAILER = "TRAILER!!!";

export function cpioArchive(entries: readonly ArchiveEntry[]): Buffer {
  const parts: Buffer[] = [];
  for (const [index, entry] of [...entries, { path: TRAILER, mode: 0 }].entries()) {
    const bytes = entry.bytes ?? new Uint8Array(0);
    const name = Buffer.from(`${entry.path}\0`);
    // inode, mode, uid, gid, links, mtime, size, major, minor, rmajor, rminor, name's length, checksum.
    const fields = [index + 1, entry.mode, 0, 0, 1, 0, bytes.byteLength, 0, 0, 0, 0, name.byteLength, 0];
    const header = `070701${fields.map((field) => field.toString(16).padStart(8, "0")).join("")}`;
    parts.push(padded(Buffer.concat([Buffer.from(header), name])), padded(bytes));
  }
  return Buffer.concat(parts);
}

/** To a multiple of four bytes. */
function padded(bytes: Uint8Array): Buffer {
  return Buffer.concat([bytes, new Uint8Array((4 - (bytes.byteLength % 4)) % 4)]);
}
