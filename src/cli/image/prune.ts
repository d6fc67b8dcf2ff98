// `minorfault image prune` and `remove`: what nobody needs any more.

import { type Command, Option } from "@commander-js/extra-typings";
import { GRACE_MS, pruneStore, removeImage } from "../../image/index.ts";
import { bytesText, msText, parseMs } from "../bytes.ts";
import { runVerb, UNTOUCHED } from "./verb.ts";

const EXAMPLES = `
A pack that no image refers to is condemned by the first run, and deleted by a later one when the grace is over: so
builds that go on at the same time lose nothing. --grace 0s deletes at once; use it when nobody builds.

Examples:
  $ minorfault image prune images --dry-run
  $ minorfault image prune images --grace 6h`;

export function registerPrune(image: Command): void {
  image
    .command("prune")
    .description("deletes packs of a store that no image refers to")
    .argument("<store>", "a folder or s3://bucket/prefix")
    .addOption(
      new Option("--grace <time>", "how long nobody must have referred to a pack: longer than builds take")
        .argParser(parseMs)
        .default(GRACE_MS, "1h"),
    )
    .option("--dry-run", "only say what would be deleted")
    .option("--json", "print the report as JSON, and no progress")
    .option("--quiet", "print nothing but errors")
    .addHelpText("after", EXAMPLES)
    .action((url, options) =>
      runVerb("prune", options, "all images are as they were", async ({ signal, progress, store: open }) => {
        const bar = progress("deleting");
        const report = await pruneStore(await open(url), {
          graceMs: options.grace,
          dryRun: options.dryRun ?? false,
          signal,
          onProgress: (now) => bar.update(now),
        });
        const { images, livePacks, liveBytes, deletedPacks, deletedBytes, condemnedPacks, condemnedBytes } =
          report;
        const deleted = options.dryRun ? "would be deleted" : "deleted";
        const text = [
          `${images} images in ${livePacks} packs, ${bytesText(liveBytes)}`,
          `  ${deletedPacks} packs ${deleted}, ${bytesText(deletedBytes)}`,
          `  ${condemnedPacks} packs are not needed and can go ${msText(options.grace)} after that was first seen, ` +
            bytesText(condemnedBytes),
        ];
        return { json: report, text: text.join("\n") };
      }),
    );
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
        const { store, name } = await find(url);
        await removeImage(store, name, signal);
        return { json: { removed: name }, text: `${url}: removed` };
      }),
    );
}
