// What a memory is opened on: finds out what a path or URL is, and says how a pager gets at it.

import { existsSync, statSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { MinorfaultError } from "../../base/errors.ts";
import type { PagerImage } from "../../pager/index.ts";
import { openSource, type PageSource } from "../../source/index.ts";
import { recoverFile } from "./journal.ts";
import type { MemoryRegion } from "./options.ts";

export interface Content {
  readonly name: string;
  readonly byteLength: number;
  readonly regions: readonly MemoryRegion[];
  /** Where it is a plain local file. */
  readonly path?: string;
  readonly pagerImage: PagerImage;
  openSource(): Promise<PageSource>;
}

/** Throws ERR_SOURCE_MISSING, ERR_BAD_ARGUMENT and what the source has to say. */
export async function openContent(target: string | URL): Promise<Content> {
  const path = localPath(String(target));
  if (path === undefined || !existsSync(path)) {
    throw new MinorfaultError("ERR_SOURCE_MISSING", `There is no file ${String(target)}`);
  }
  const stat = statSync(path);
  if (!stat.isFile()) {
    throw new MinorfaultError("ERR_BAD_ARGUMENT", `${path} is neither a file nor an image`);
  }
  await recoverFile(path);
  const byteLength = statSync(path).size;
  if (byteLength === 0) throw new MinorfaultError("ERR_BAD_ARGUMENT", `${path} is empty`);
  return {
    name: path,
    byteLength,
    path,
    regions: [{ name: "file", offset: 0, byteLength, guestAddress: 0 }],
    pagerImage: { path },
    openSource: () => openSource(path),
  };
}

/** Of a path or a file: URL; undefined for what is elsewhere. */
function localPath(target: string): string | undefined {
  if (target.startsWith("file:")) return fileURLToPath(target);
  return /^[a-z][a-z0-9+.-]+:/i.test(target) ? undefined : target;
}
