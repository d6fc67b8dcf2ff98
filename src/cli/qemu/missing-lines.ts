// What is said while a machine is served from an image that is damaged or cannot be read: at once, a line for each chunk;
// with --json each line is an object.

import type { MissingChunk } from "../../guest/qemu/index.ts";
import { PAGE_BYTES } from "../../guest/qemu/index.ts";
import type { Image } from "../../image/index.ts";
import { bytesText } from "../bytes.ts";
import type { Manner } from "../image/verb.ts";

/** LIMIT: chunks that have a line of their own, for people. */
const LINES_MAX = 10;

const ADVICE =
  "It is not sent, everything else is, and it is tried again meanwhile: put the packs that " +
  "`minorfault image verify` names back from a copy";

/** Where a chunk's pages lie in the machine. */
interface Place {
  readonly block: string;
  readonly offset: number;
  readonly byteLength: number;
}

/** Tells of chunks on stderr, whose errors are errors also with --quiet. */
export function missingLines(image: Image, { json }: Manner): (chunk: MissingChunk) => void {
  const missing = new Set<number>();
  const say = (line: string): void => {
    process.stderr.write(`${line}\n`);
  };
  return ({ chunk, pages, error }) => {
    const place = placeOf(image, pages);
    if (error === undefined) missing.delete(pages.first);
    else missing.add(pages.first);
    if (json)
      say(
        JSON.stringify({
          event: error === undefined ? "come" : "missing",
          chunk,
          ...place,
          ...noteOf(error),
        }),
      );
    else if (error === undefined) {
      if (missing.size === 0) say("The image has everything again that was missing, and it is sent");
    } else if (missing.size <= LINES_MAX) {
      const { block, offset, byteLength } = place;
      say(
        `missing: ${bytesText(byteLength)} of ${block} at 0x${offset.toString(16)}: ${error.message} (${error.code})`,
      );
      if (missing.size === 1) say(ADVICE);
    } else if (missing.size === LINES_MAX + 1) say("missing: more than that, which is not told any more");
  };
}

function placeOf({ regions }: Image, { first, count }: MissingChunk["pages"]): Place {
  const at = first * PAGE_BYTES;
  const region = regions.find(({ offset, byteLength }) => at >= offset && at < offset + byteLength)!;
  return { block: region.name, offset: at - region.offset, byteLength: count * PAGE_BYTES };
}

function noteOf(error: MissingChunk["error"]): object {
  return error === undefined ? {} : { code: error.code, message: error.message, hint: ADVICE };
}
