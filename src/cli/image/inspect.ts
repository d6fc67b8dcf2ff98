// `minorfault image inspect` and `list`: what an image is, and which ones a store has.

import type { Command } from "@commander-js/extra-typings";
import { hex } from "../../base/errors.ts";
import { listImages, type Manifest, openImageIn } from "../../image/index.ts";
import { bytesText, counted } from "../bytes.ts";
import { runVerb, UNTOUCHED } from "./verb.ts";

export function registerInspect(image: Command): void {
  image
    .command("inspect")
    .description("says what an image holds: regions, notes, attachments, working sets")
    .argument("<image>", "folder/name, https://…/name or s3://bucket/prefix/name")
    .option("--json", "print the manifest as JSON")
    .addHelpText(
      "after",
      `
Examples:
  $ minorfault image inspect images/model
  $ minorfault image inspect https://host/images/model --json | jq .regions`,
    )
    .action((url, options) =>
      runVerb("inspect", options, UNTOUCHED, async ({ signal, image: find }) => {
        const { store, name } = await find(url);
        const opened = await openImageIn(store, name, { signal });
        try {
          const { manifest, digest } = opened;
          const { packs, node } = opened.index.root;
          const index = { indexPages: node.occupied, packs: packs.count };
          return {
            json: { ...manifest, digest, ...index },
            text: [
              ...manifestLines(url, manifest),
              row("index", `${counted(index.indexPages, "page")}, ${counted(index.packs, "pack")}`),
              row("digest", digest),
            ].join("\n"),
          };
        } finally {
          await opened.close();
        }
      }),
    );
}

export function registerList(image: Command): void {
  image
    .command("list")
    .description("lists the images of a store")
    .argument("<store>", "a folder or s3://bucket/prefix")
    .option("--json", "print the manifests as JSON")
    .addHelpText(
      "after",
      "\nExamples:\n  $ minorfault image list images\n  $ minorfault image list s3://bucket/images --json",
    )
    .action((url, options) =>
      runVerb("list", options, UNTOUCHED, async ({ signal, store: open }) => {
        const images = [];
        for await (const found of listImages(await open(url, "to be there"), signal)) images.push(found);
        const problems = images.filter(({ problem }) => problem !== undefined).length;
        return {
          json: images.map(({ name, digest, manifest, problem }) => ({
            name,
            digest,
            manifest,
            problem: problem?.message,
          })),
          text: images
            .map(({ name, manifest, problem }) =>
              manifest === undefined
                ? `${name.padEnd(24)} ${problem?.message}`
                : `${name.padEnd(24)} ${bytesText(manifest.byteLength).padStart(9)}  ${manifest.created}  ` +
                  manifest.regions.map((region) => region.name).join(", "),
            )
            .join("\n"),
          exitCode: problems === 0 ? 0 : 1,
        };
      }),
    );
}

function manifestLines(url: string, manifest: Manifest): string[] {
  const { regions, attachments, workingSets, notes, codec, level, parent } = manifest;
  const chunks = `${bytesText(manifest.chunkBytes)}, ${codec}${level === undefined ? "" : ` level ${level}`}`;
  return [
    `${url}: ${bytesText(manifest.byteLength)}`,
    row("created", manifest.created),
    row("chunks", chunks),
    ...(parent === undefined ? [] : [row("parent", parent.name)]),
    ...regions.map(({ name, guestAddress, dataBytes, pageSize }) =>
      row(
        "region",
        `${name}: ${bytesText(dataBytes)} at ${hex(guestAddress)}, pages of ${bytesText(pageSize)}`,
      ),
    ),
    ...attachments.map(({ name, byteLength }) => row("attachment", `${name}: ${bytesText(byteLength)}`)),
    ...workingSets.map(({ name, pages, packBytes }) =>
      row("working set", `${name}: ${counted(pages, "page")}, ${bytesText(packBytes)} stored`),
    ),
    ...Object.entries(notes).map(([name, text]) => row("note", `${name}: ${text}`)),
  ];
}

function row(name: string, text: string): string {
  return `  ${name.padEnd(12)} ${text}`;
}
