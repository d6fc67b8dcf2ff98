// `minorfault image prune` and `remove`: what nobody needs any more.

import { type Command, Option } from "@commander-js/extra-typings";
import { GRACE_MS, type PruneReport, pruneStore, type RepackReport, removeImage } from "../../image/index.ts";
import { bytesText, counted, msText, parseMs } from "../bytes.ts";
import { runVerb, UNTOUCHED } from "./verb.ts";

const EXAMPLES = `
A pack that no image refers to is condemned by the first run, and deleted by a later one when the grace is over: so
builds that go on at the same time lose nothing. --grace 0s deletes at once; use it when nobody builds or reads.

--repack first rewrites packs of which less than half is needed. Images stay what they are, but their manifests, and so
their digests, change; who has one open goes on reading the old packs until they are deleted. An image that is replaced
at that moment may lose its newer version: repack when nobody builds.

Examples:
  $ minorfault image prune images --dry-run
  $ minorfault image prune images --repack --grace 6h`;

export function registerPrune(image: Command): void {
  image
    .command("prune")
    .description(
      "deletes packs of a store that no image refers to, and rewrites those that are mostly garbage",
    )
    .argument("<store>", "a folder or s3://bucket/prefix")
    .addOption(
      new Option("--grace <time>", "how long nobody must have referred to a pack: longer than builds take")
        .argParser(parseMs)
        .default(GRACE_MS, "1h"),
    )
    .option("--repack", "first rewrite packs that are mostly garbage")
    .option("--dry-run", "only say what would be done")
    .option("--json", "print the report as JSON, and no progress")
    .option("--quiet", "print nothing but errors")
    .addHelpText("after", EXAMPLES)
    .action((url, options) =>
      runVerb(
        "prune",
        options,
        "all images hold what they held",
        async ({ signal, progress, store: open }) => {
          const store = await open(url, "to be there");
          let bar = progress(options.repack ? "repacking" : "deleting");
          let phase = options.repack ? "repack" : "delete";
          const report = await pruneStore(store, {
            graceMs: options.grace,
            repack: options.repack ?? false,
            dryRun: options.dryRun ?? false,
            signal,
            onProgress: (now) => {
              if (now.phase !== phase) bar = progress("deleting");
              phase = now.phase;
              bar.update(now);
            },
          });
          return { json: report, text: textOf(report, options.grace, options.dryRun ?? false) };
        },
      ),
    );
}

function textOf(report: PruneReport, graceMs: number, dryRun: boolean): string {
  const { images, livePacks, liveBytes, deletedPacks, deletedBytes, condemnedPacks, condemnedBytes } = report;
  return [
    `${counted(images, "image")} in ${counted(livePacks, "pack")}, ${bytesText(liveBytes)}`,
    ...(report.repacked === undefined ? [] : repackLines(report.repacked, dryRun)),
    `  ${counted(deletedPacks, "pack")} ${dryRun ? "would be deleted" : "deleted"}, ${bytesText(deletedBytes)}`,
    `  ${condemnedPacks} packs are not needed and can go ${msText(graceMs)} after that was first seen, ` +
      bytesText(condemnedBytes),
  ].join("\n");
}

function repackLines(
  { packs, packBytes, movedBytes, images, left }: RepackReport,
  dryRun: boolean,
): string[] {
  return [
    `  ${counted(packs, "pack")} of ${bytesText(packBytes)} ${dryRun ? "would be rewritten" : "rewritten"} to ` +
      `${bytesText(movedBytes)}, for ${counted(images, "image")}`,
    ...left.map(({ what, why }) => `  ${what} was left as it is: ${why}`),
  ];
}

export function registerRemove(image: Command): void {
  image
    .command("remove")
    .description("removes an image; what only it needed is deleted by prune")
    .argument("<image>", "folder/name or s3://bucket/prefix/name")
    .option("--json", "print the result as JSON")
    .option("--quiet", "print nothing but errors")
    .addHelpText(
      "after",
      "\nExamples:\n  $ minorfault image remove images/vm && minorfault image prune images",
    )
    .action((url, options) =>
      runVerb("remove", options, UNTOUCHED, async ({ signal, image: find }) => {
        const { store, name } = await find(url, "to write");
        await removeImage(store, name, signal);
        return { json: { removed: name }, text: `${url}: removed` };
      }),
    );
}
