// `minorfault image create`: builds an image from raw files, one region a file.

import { readFileSync } from "node:fs";
import { basename } from "node:path";
import { type Command, InvalidArgumentError, Option } from "@commander-js/extra-typings";
import { MinorfaultError } from "../../base/errors.ts";
import { type BuildReport, buildImage, openRawFile } from "../../image/index.ts";
import { bytesText, counted, msText, parseBytes } from "../bytes.ts";
import { collect, runVerb, UNTOUCHED } from "./verb.ts";

const EXAMPLES = `
IMAGE is a store and a name in it: folder/name, s3://bucket/prefix/name. Files are regions in the order in which they
stand; a --region describes the next file.

Examples:
  $ minorfault image create images/model weights.bin
  $ minorfault image create images/vm --region name=low,address=0 low.bin --region name=high,address=4GiB high.bin
  $ minorfault image create images/vm2 mem.bin --parent vm --note kernel=6.18 --attach state=vm.state
  $ minorfault image create images/raw mem.bin --level none --chunk 16KiB --json | jq .chunks`;

interface RegionText {
  readonly name?: string;
  readonly guestAddress?: number;
  readonly pageSize?: 4096 | 2097152;
}

export function registerCreate(image: Command): void {
  image
    .command("create")
    .description("builds an image from raw files")
    .argument("<image>", "where to build it: folder/name or s3://bucket/prefix/name")
    .argument("<files...>", "raw files, one a region")
    .addOption(
      new Option(
        "--region <description>",
        "of a file: name=…,address=…,page=4KiB|2MiB; once for each file, in order",
      )
        .argParser((text: string, before: RegionText[] | undefined) => [...(before ?? []), parseRegion(text)])
        .default([] as RegionText[], "the file's name, at address 0"),
    )
    .addOption(levelOption())
    .option("--parent <name>", "an image of the same store: only what changed is stored")
    .addOption(chunkOption())
    .option("--note <name=text>", "a note, may be repeated", collect)
    .option(
      "--attach <name=file>",
      "a file that goes with the image, may be repeated",
      collect,
      [] as string[],
    )
    .option("--replace", "replace an image of the same name")
    .option("--json", "print the report as JSON, and no progress")
    .option("--quiet", "print nothing but errors")
    .addHelpText("after", EXAMPLES)
    .action((url, files, options) =>
      runVerb("create", options, UNTOUCHED, async ({ signal, progress, image: find }) => {
        if (options.region.length > files.length) {
          throw new MinorfaultError(
            "ERR_BAD_ARGUMENT",
            `${options.region.length} regions for ${files.length} files`,
          );
        }
        const notes = Object.fromEntries((options.note ?? []).map((text) => pair("--note", text)));
        const attachments = (options.attach ?? []).map((text) => {
          const [name, path] = pair("--attach", text);
          return { name, bytes: readAttachment(path) };
        });
        const opened = files.map((path) => openRawFile(path));
        try {
          const { store, name } = await find(url, "to write");
          const bar = progress("building");
          const regions = opened.map(({ source, extents }, index) => ({
            name: regionName(files[index]!, index),
            ...options.region[index],
            source,
            ...(extents && { extents }),
          }));
          const report = await buildImage(store, name, {
            regions,
            ...(options.level === "none" ? { codec: "none" as const } : { level: options.level }),
            ...(options.chunk !== undefined && { chunkBytes: options.chunk }),
            ...(options.parent !== undefined && { parent: options.parent }),
            notes,
            attachments,
            ifAbsent: !options.replace,
            signal,
            onProgress: (now) => bar.update(now),
          });
          return { json: jsonOf(report), text: textOf(url, report) };
        } finally {
          for (const { source } of opened) await source.close();
        }
      }),
    );
}

export function levelOption() {
  return new Option("--level <level>", "of zstd, 1 to 19, or none")
    .argParser((text: string): number | "none" => {
      const level = Number(text);
      if (text === "none") return "none";
      if (Number.isInteger(level) && level >= 1 && level <= 19) return level;
      throw new InvalidArgumentError("It is an integer from 1 to 19, or none.");
    })
    .default(3);
}

export function chunkOption() {
  return new Option(
    "--chunk <size>",
    "bytes that are hashed and compressed as one: 4KiB to 2MiB (default: 64KiB)",
  ).argParser(parseBytes);
}

export function jsonOf({ manifest, ...report }: BuildReport): unknown {
  const { name, byteLength, chunkBytes, codec, level, regions } = manifest;
  return { name, byteLength, chunkBytes, codec, level, regions, ...report };
}

export function textOf(url: string, { manifest, chunks, writtenBytes, packs, ms }: BuildReport): string {
  const looked = chunks.zero + chunks.known + chunks.stored;
  return [
    `${url}: ${bytesText(manifest.byteLength)}, built in ${msText(ms)}`,
    `  chunks   ${looked} looked at: ${chunks.stored} stored, ${chunks.known} stored before, ${chunks.zero} zero`,
    `  written  ${bytesText(writtenBytes)} in ${counted(packs.length, "pack")}`,
  ].join("\n");
}

function parseRegion(text: string): RegionText {
  const region: { name?: string; guestAddress?: number; pageSize?: 4096 | 2097152 } = {};
  for (const part of text.split(",")) {
    const [key, value] = [part.slice(0, part.indexOf("=")), part.slice(part.indexOf("=") + 1)];
    if (key === "name") region.name = value;
    else if (key === "address") region.guestAddress = parseAddress(value);
    else if (key === "page") region.pageSize = parsePage(value);
    else throw new InvalidArgumentError("A region is described by name=…, address=… and page=…");
  }
  return region;
}

export function parseAddress(text: string): number {
  const address = /^0x[0-9a-f]+$/i.test(text) ? Number(text) : parseBytes(text);
  if (Number.isSafeInteger(address) && address % 4096 === 0) return address;
  throw new InvalidArgumentError("An address is a multiple of 4096, such as 0x100000000 or 4GiB.");
}

function parsePage(text: string): 4096 | 2097152 {
  const byteLength = parseBytes(text);
  if (byteLength === 4096 || byteLength === 2097152) return byteLength;
  throw new InvalidArgumentError("A page has 4KiB or 2MiB.");
}

export function pair(option: string, text: string): [string, string] {
  const at = text.indexOf("=");
  if (at > 0) return [text.slice(0, at), text.slice(at + 1)];
  throw new MinorfaultError("ERR_BAD_ARGUMENT", `${option} ${text} is not name=value`);
}

function readAttachment(path: string): Uint8Array {
  try {
    return readFileSync(path);
  } catch (cause) {
    throw new MinorfaultError("ERR_SOURCE_MISSING", `${path} can not be read`, { cause });
  }
}

/** The file's name as far as it is one for a region. */
export function regionName(path: string, index: number): string {
  const name = basename(path)
    .replace(/[^A-Za-z0-9._-]/g, "_")
    .replace(/^[.-]+/, "");
  return name === "" ? `region${index}` : name.slice(0, 128);
}
