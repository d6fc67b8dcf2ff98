// The manifest of an image: what people and programs ask first, and the hash from which everything else is checked.
//
// JSON whose last 83 bytes are `,\n  "sha256": "<64 digits>"\n}\n`, the hash being that of all bytes before them. So
// a flipped bit in a guest's address is noticed as one in a page is, by readers in any language.
//
// Versions: a reader refuses a `version` above its own, and a feature in `requires` that it does not know. It
// ignores fields that it does not know, and keeps them when it writes the manifest again.

import * as v from "valibot";
import { MinorfaultError } from "../base/errors.ts";
import { checked, integer, matching, moment, text } from "../base/schema.ts";
import { badImage, wrongBytes } from "./content.ts";
import { sha256, toHex } from "./hash.ts";
import {
  ATTACHMENT_BYTES_MAX,
  ATTACHMENTS_MAX,
  FORMAT_NAME,
  FORMAT_VERSION,
  HUGE_PAGE_BYTES,
  IMAGE_BYTES_MAX,
  MANIFEST_BYTES_MAX,
  NOTE_CHARACTERS_MAX,
  NOTES_MAX,
  PACK_BYTES_MAX,
  PAGE_BYTES,
  REGIONS_MAX,
  ROOT_BYTES_MAX,
  WORKING_SET_PAGES_MAX,
  WORKING_SETS_MAX,
} from "./limits.ts";
import { NAME } from "./names.ts";
import { isChunkSize } from "./root.ts";

/** Features of `requires` that this reader knows: none is needed yet. */
const FEATURES: ReadonlySet<string> = new Set();

const name = matching(NAME);
const hash = matching(/^[0-9a-f]{64}$/);
const count = (max: number) => integer(0, max);

const region = v.looseObject({
  name,
  guestAddress: integer(0),
  /** Whole pages. */
  byteLength: integer(PAGE_BYTES, IMAGE_BYTES_MAX),
  /** How many of them were given; what follows is zeros. */
  dataBytes: count(IMAGE_BYTES_MAX),
  /** In the image's flat space. */
  offset: count(IMAGE_BYTES_MAX),
  pageSize: v.picklist([PAGE_BYTES, HUGE_PAGE_BYTES]),
});

const attachment = v.looseObject({
  name,
  byteLength: count(ATTACHMENT_BYTES_MAX),
  sha256: hash,
  pack: hash,
  offset: count(PACK_BYTES_MAX),
  storedBytes: count(ATTACHMENT_BYTES_MAX),
  encoding: v.picklist(["raw", "zstd"]),
});

const workingSet = v.looseObject({
  name,
  pack: hash,
  packBytes: count(PACK_BYTES_MAX),
  pages: integer(1, WORKING_SET_PAGES_MAX),
  listBytes: count(PACK_BYTES_MAX),
  listSha256: hash,
});

const manifestSchema = v.looseObject({
  format: v.literal(FORMAT_NAME),
  version: v.literal(FORMAT_VERSION),
  requires: v.pipe(v.array(v.string()), v.maxLength(64)),
  name,
  created: moment,
  chunkBytes: v.pipe(v.number(), v.check(isChunkSize, "It is no size of a chunk")),
  codec: v.picklist(["none", "zstd"]),
  level: v.optional(integer(1, 22)),
  byteLength: integer(PAGE_BYTES, IMAGE_BYTES_MAX),
  regions: v.pipe(v.array(region), v.minLength(1), v.maxLength(REGIONS_MAX)),
  root: v.looseObject({ pack: hash, packBytes: count(ROOT_BYTES_MAX), sha256: hash }),
  parent: v.optional(v.looseObject({ name, root: hash })),
  notes: v.pipe(v.record(name, text(0, NOTE_CHARACTERS_MAX)), v.maxEntries(NOTES_MAX)),
  attachments: v.pipe(v.array(attachment), v.maxLength(ATTACHMENTS_MAX)),
  workingSets: v.pipe(v.array(workingSet), v.maxLength(WORKING_SETS_MAX)),
});

export type Manifest = v.InferOutput<typeof manifestSchema>;
export type ManifestRegion = Manifest["regions"][number];
export type ManifestAttachment = Manifest["attachments"][number];
export type ManifestWorkingSet = Manifest["workingSets"][number];

const TAIL_BYTES = 83;
const TAIL = /^,\n {2}"sha256": "([0-9a-f]{64})"\n\}\n$/;

export function encodeManifest(manifest: Manifest): Uint8Array {
  const { sha256: _, ...fields } = manifest as Manifest & { sha256?: string };
  const body = JSON.stringify(fields, null, 2).slice(0, -"\n}".length);
  const bytes = Buffer.from(body);
  const text = `${body},\n  "sha256": "${toHex(sha256(bytes))}"\n}\n`;
  const whole = Buffer.from(text);
  if (whole.byteLength > MANIFEST_BYTES_MAX) {
    throw new MinorfaultError(
      "ERR_LIMIT",
      `The manifest has ${whole.byteLength} bytes, ${MANIFEST_BYTES_MAX} are allowed`,
    );
  }
  return whole;
}

/** The manifest from its bytes: hash first, then version, then form, then what the numbers say together. */
export function decodeManifest(bytes: Uint8Array, imageName: string): Manifest {
  const fields = parse(bytes, imageName);
  checkVersion(fields, imageName);
  const manifest = checked(manifestSchema, fields, (flaw) =>
    badImage(`The manifest of ${imageName} is wrong at ${flaw}`),
  );
  if (manifest.name !== imageName) {
    throw badImage(`The manifest of ${imageName} is that of ${manifest.name}`);
  }
  checkTogether(manifest);
  return manifest;
}

/** The hash that a manifest carries at its end, which pins all of an image. */
export function manifestDigest(bytes: Uint8Array): string {
  return toHex(sha256(bytes));
}

function parse(bytes: Uint8Array, imageName: string): unknown {
  const end = bytes.byteLength - TAIL_BYTES;
  const tail = end < 0 ? null : TAIL.exec(Buffer.from(bytes.subarray(end)).toString("latin1"));
  if (tail === null) throw badImage(`The manifest of ${imageName} does not end with its SHA-256`);
  const found = toHex(sha256(bytes.subarray(0, end)));
  if (found !== tail[1]) {
    throw wrongBytes(`The manifest of ${imageName} has the SHA-256 ${found} instead of ${tail[1]}`);
  }
  try {
    return JSON.parse(Buffer.from(bytes).toString("utf8"));
  } catch (cause) {
    throw badImage(`The manifest of ${imageName} is not JSON`, cause);
  }
}

function checkVersion(fields: unknown, imageName: string): void {
  const { format, version, requires } = (fields ?? {}) as Record<string, unknown>;
  if (format !== FORMAT_NAME) throw badImage(`The manifest of ${imageName} is not one of a ${FORMAT_NAME}`);
  if (typeof version === "number" && version > FORMAT_VERSION) {
    throw new MinorfaultError(
      "ERR_IMAGE_VERSION",
      `${imageName} has version ${version} of the format, this is a reader of version ${FORMAT_VERSION}`,
    );
  }
  const unknown = Array.isArray(requires) ? requires.filter((feature) => !FEATURES.has(feature)) : [];
  if (unknown.length > 0) {
    throw new MinorfaultError("ERR_IMAGE_VERSION", `${imageName} requires ${unknown.join(", ")}`);
  }
}

function checkTogether(manifest: Manifest): void {
  const wrong = (reason: string) => badImage(`The manifest of ${manifest.name} is wrong: ${reason}`);
  if (manifest.byteLength % manifest.chunkBytes !== 0) throw wrong("it does not end with a chunk");
  let end = 0;
  for (const { name, offset, byteLength, dataBytes, pageSize } of manifest.regions) {
    if (offset < end || offset % Math.max(pageSize, manifest.chunkBytes) !== 0) {
      throw wrong(`region ${name} begins at ${offset}`);
    }
    if (byteLength % pageSize !== 0 || dataBytes > byteLength)
      throw wrong(`region ${name} has ${byteLength} bytes`);
    end = offset + byteLength;
    if (end > manifest.byteLength) throw wrong(`region ${name} ends beyond the image`);
  }
  for (const list of [manifest.regions, manifest.attachments, manifest.workingSets]) {
    const names = new Set(list.map((each) => each.name));
    if (names.size !== list.length) throw wrong("two things have one name");
  }
}
