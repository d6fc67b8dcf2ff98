// A block of RAM is a region of the image. Names of blocks ("/rom@etc/acpi/tables") have characters that names of
// regions have not; those are written as _ and two hexadecimal digits, so that each name leads back to the other.

import { MinorfaultError } from "../../base/errors.ts";

/** LIMIT: characters of a region's name. */
const NAME_MAX = 128;

export function regionNameOf(block: string): string {
  const bytes = [...new TextEncoder().encode(block)];
  const name = bytes
    .map((byte, index) => (isPlain(byte, index) ? String.fromCharCode(byte) : escaped(byte)))
    .join("");
  if (name !== "" && name.length <= NAME_MAX) return name;
  throw new MinorfaultError("ERR_LIMIT", `Block ${JSON.stringify(block)} has a name that no region can have`);
}

export function blockNameOf(region: string): string {
  const bytes = region.match(/_[0-9a-f]{2}|[^_]/g) ?? [];
  return new TextDecoder().decode(
    Uint8Array.from(bytes, (text) =>
      text.length === 1 ? text.charCodeAt(0) : Number.parseInt(text.slice(1), 16),
    ),
  );
}

/** Letters, digits, dots and dashes, but no dot or dash in front. */
function isPlain(byte: number, index: number): boolean {
  return (index === 0 ? /[A-Za-z0-9]/ : /[A-Za-z0-9.-]/).test(String.fromCharCode(byte));
}

function escaped(byte: number): string {
  return `_${byte.toString(16).padStart(2, "0")}`;
}
