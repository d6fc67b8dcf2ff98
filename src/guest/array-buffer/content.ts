// What a memory is opened on: finds out what a path or URL is, and says how a pager gets at it.
//
//   an existing local file           as it is, mapped by the pager
//   folder/name, http(s)://, s3://   an image of that name if there is one, else the raw object
//
// What a URL names is looked at here once, and pinned: the pager's thread opens it again, and must find the same.

import { statSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { MinorfaultError } from "../../base/errors.ts";
import type { FetchOptions, PagerOptions } from "../../pager/index.ts";
import type { PageSource } from "../../source/index.ts";
import { schemeOf } from "../../source/scheme.ts";
import { recoverFile } from "./journal.ts";
import type { MemoryRegion } from "./options.ts";

export interface Content {
  readonly name: string;
  readonly byteLength: number;
  readonly regions: readonly MemoryRegion[];
  /** Where it is a plain local file. */
  readonly path?: string;
  /** Where it is an image: its store, its name there, and the SHA-256 of its root index: what its content is. */
  readonly image?: { readonly store: string; readonly name: string; readonly root: string };
  /** Where the pager finds the bytes. */
  readonly pager: Pick<PagerOptions, "image" | "source">;
  openSource(): Promise<PageSource>;
}

/** Throws ERR_SOURCE_MISSING, ERR_BAD_ARGUMENT and what the source has to say. */
export async function openContent(target: string | URL, fetch: FetchOptions = {}): Promise<Content> {
  const url = String(target);
  const path = localPath(url);
  const stat = path === undefined ? undefined : statSync(path, { throwIfNoEntry: false });
  if (path !== undefined && stat?.isFile()) return await fileContent(path);
  const content =
    (await imageContent(url, fetch)) ?? (path === undefined ? await rawContent(url, fetch) : undefined);
  if (content !== undefined) return content;
  throw new MinorfaultError("ERR_SOURCE_MISSING", `There is no file and no image ${url}`, {
    hint: "An image is named by its store and its name: folder/name",
  });
}

async function fileContent(path: string): Promise<Content> {
  await recoverFile(path);
  const byteLength = statSync(path).size;
  checkLength(byteLength, path);
  return {
    name: path,
    byteLength,
    path,
    regions: [{ name: "file", offset: 0, byteLength, guestAddress: 0 }],
    pager: { image: { path } },
    openSource: async () => (await import("../../source/index.ts")).openSource(path),
  };
}

/** Undefined when there is no image of that name. */
async function imageContent(url: string, fetch: FetchOptions): Promise<Content | undefined> {
  const [{ openImage }, { splitImageUrl }] = await loadReaders();
  const image = await unlessMissing(() => openImage(url));
  if (image === undefined) return undefined;
  try {
    const { byteLength, digest, name } = image;
    checkLength(byteLength, name);
    return {
      name,
      byteLength,
      regions: image.regions.map(({ name, offset, byteLength, guestAddress }) => ({
        name,
        offset,
        byteLength,
        guestAddress,
      })),
      image: { ...splitImageUrl(url), root: image.manifest.root.sha256 },
      pager: { source: { ...fetch, url, kind: "image", digest } },
      openSource: () => openImage(url, { digest }),
    };
  } finally {
    await image.close();
  }
}

async function rawContent(url: string, fetch: FetchOptions): Promise<Content> {
  const [, { openSource }] = await loadReaders();
  const source = await openSource(url);
  const { name, byteLength } = source;
  await source.close();
  checkLength(byteLength, name);
  return {
    name,
    byteLength,
    regions: [{ name: "object", offset: 0, byteLength, guestAddress: 0 }],
    pager: { source: { ...fetch, url, kind: "raw" } },
    openSource: () => openSource(url),
  };
}

/** Images and their stores take a tenth of a second to load, which a plain file does not need. */
const loadReaders = () => Promise.all([import("../../image/index.ts"), import("../../source/index.ts")]);

async function unlessMissing<T>(open: () => Promise<T>): Promise<T | undefined> {
  try {
    return await open();
  } catch (error) {
    if (error instanceof MinorfaultError && MISSING.has(error.code)) return undefined;
    throw error;
  }
}

/** There is nothing of the name, or the name is none that an image could have. */
const MISSING: ReadonlySet<string> = new Set(["ERR_SOURCE_MISSING", "ERR_STORE_PATH", "ERR_STORE_URL"]);

function checkLength(byteLength: number, name: string): void {
  if (byteLength === 0) throw new MinorfaultError("ERR_BAD_ARGUMENT", `${name} is empty`);
}

/** Of a path or a file: URL; undefined for what is elsewhere. */
function localPath(target: string): string | undefined {
  if (target.startsWith("file:")) return fileURLToPath(target);
  return schemeOf(target) === undefined ? target : undefined;
}
