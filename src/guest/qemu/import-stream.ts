// An image from a stream that was saved in a file: `migrate "exec:cat > FILE"`, `file:FILE`, mapped-ram, `virsh save`.
//
// The file is gone through once for where the pages are (the last copy of a page counts), and then read chunk by
// chunk in the order of memory: nothing is held but an index of 8 bytes a page.

import { type BuildOptions, type BuildRegion, type BuildReport, buildImage } from "../../image/index.ts";
import { FileSource } from "../../source/file-source.ts";
import type { ObjectStore } from "../../source/object-store.ts";
import { regionNameOf } from "./block-names.ts";
import { MappedPlaces, type PagePlaces, RecordPlaces } from "./page-places.ts";
import { PlacedSource } from "./placed-source.ts";
import { HUGE_PAGE_BYTES, PAGE_BYTES, type RamBlock } from "./stream-format.ts";
import { StreamParts } from "./stream-parts.ts";
import { StreamReader } from "./stream-reader.ts";

export interface ImportStreamOptions
  extends Pick<BuildOptions, "codec" | "level" | "chunkBytes" | "ifAbsent" | "signal" | "onProgress"> {
  readonly notes?: Readonly<Record<string, string>>;
}

const READ_BYTES = 2 ** 20;
/** What need not be read is passed over from so many bytes on; less is read faster than skipped. */
const SKIP_BYTES_MIN = 4 * READ_BYTES;

/** Builds an image of the machine that a file holds. */
export async function importStream(
  store: ObjectStore,
  name: string,
  path: string,
  { notes, ...options }: ImportStreamOptions = {},
): Promise<BuildReport> {
  const file = FileSource.open(path);
  try {
    const { parts, places } = await indexStream(file, options.signal);
    const extras = parts.extras();
    const regions = (parts.blocks ?? []).map((block, index) => regionOf(block, parts, file, places[index]!));
    return await buildImage(store, name, {
      ...options,
      regions,
      attachments: extras.attachments,
      notes: { ...extras.notes, ...notes },
    });
  } finally {
    await file.close();
  }
}

function regionOf(block: RamBlock, parts: StreamParts, file: FileSource, places: PagePlaces): BuildRegion {
  return {
    name: regionNameOf(block.name),
    pageSize: parts.pageSizeOf(block) === PAGE_BYTES ? PAGE_BYTES : HUGE_PAGE_BYTES,
    source: new PlacedSource(`block ${block.name} of ${file.name}`, block.byteLength, file, places),
    extents: places.extents(),
  };
}

async function indexStream(
  file: FileSource,
  signal: AbortSignal | undefined,
): Promise<{ parts: StreamParts; places: PagePlaces[] }> {
  const reader = new StreamReader({ payload: false });
  const parts = new StreamParts({ saved: "file" });
  const bitmaps: (Uint8Array | undefined)[] = [];
  const records: RecordPlaces[] = [];
  const take = () => {
    for (let event = reader.read(); event !== undefined; event = reader.read()) {
      if (event.kind === "page") records[event.block]!.set(event.page, event.at);
      else if (event.kind === "zero") records[event.block]!.set(event.page, 0);
      else if (event.kind === "mapped") bitmaps[event.block] = event.bitmap;
      else {
        parts.add(event);
        if (event.kind === "blocks") records.push(...event.blocks.map(() => new RecordPlaces()));
      }
    }
  };
  for (let at = 0; at < file.byteLength; ) {
    signal?.throwIfAborted();
    // A new buffer each time: what was pushed is read later.
    const piece = new Uint8Array(Math.min(READ_BYTES, file.byteLength - at));
    file.readSync(at, piece);
    at += piece.byteLength;
    reader.push(piece);
    take();
    const skip = Math.min(reader.skippable, file.byteLength - at);
    if (skip >= SKIP_BYTES_MIN) {
      reader.skip(skip);
      at += skip;
      take();
    }
    // Others have the thread now and then: signals, progress.
    await new Promise<void>((resolve) => setImmediate(resolve));
  }
  reader.end();
  take();
  const places = (parts.blocks ?? []).map(({ mapped, byteLength }, block) => {
    const bitmap = bitmaps[block];
    return mapped === undefined || bitmap === undefined
      ? records[block]!
      : new MappedPlaces(mapped, byteLength, bitmap);
  });
  return { parts, places };
}
