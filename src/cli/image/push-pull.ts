// `minorfault image push` and `pull`: an image from one store to another, without what is there already.

import type { Command } from "@commander-js/extra-typings";
import { type CopyReport, copyImage } from "../../image/index.ts";
import { bytesText, counted, msText } from "../bytes.ts";
import { parseDigest, runVerb } from "./verb.ts";

const RESUME = "what has been moved is kept: the same command goes on from there";

export function registerPush(image: Command): void {
  register(image, "push", "copies an image of this machine to another store", [
    "minorfault image push images/vm s3://bucket/images",
    "minorfault image push images/vm /mnt/share/images --as vm-2026",
  ]);
}

export function registerPull(image: Command): void {
  register(image, "pull", "copies an image of another store to this machine", [
    "minorfault image pull https://host/images/vm images",
    "minorfault image pull s3://bucket/images/vm images --as vm-copy",
  ]);
}

function register(
  image: Command,
  verb: "push" | "pull",
  description: string,
  examples: readonly string[],
): void {
  image
    .command(verb)
    .description(`${description}: only chunks that are missing there, each verified`)
    .argument("<image>", "the image, in its store")
    .argument("<store>", "the store that shall have it")
    .option("--as <name>", "its name there")
    .option("--digest <sha256>", "what the manifest's SHA-256 must be", parseDigest)
    .option("--json", "print the report as JSON, and no progress")
    .option("--quiet", "print nothing but errors")
    .addHelpText(
      "after",
      "\nAn image of that name there is replaced. One that was interrupted goes on where it stopped.",
    )
    .addHelpText("after", `\nExamples:\n${examples.map((example) => `  $ ${example}`).join("\n")}`)
    .action((url, target, options) =>
      runVerb(verb, options, RESUME, async ({ signal, progress, image: find, store: open }) => {
        const { store, name } = await find(url);
        const to = await open(target, "to write");
        const bar = progress(verb === "push" ? "pushing" : "pulling");
        const report = await copyImage(store, name, to, {
          ...(options.as !== undefined && { as: options.as }),
          ...(options.digest !== undefined && { digest: options.digest }),
          signal,
          onProgress: (now) => bar.update(now),
        });
        const { manifest, ...rest } = report;
        return { json: { name: manifest.name, ...rest }, text: textOf(target, report) };
      }),
    );
}

function textOf(target: string, { manifest, chunks, movedBytes, resumedPacks, ms }: CopyReport): string {
  const resumed =
    resumedPacks > 0
      ? `, ${counted(resumedPacks, "pack")} ${resumedPacks === 1 ? "was" : "were"} there from before`
      : "";
  return [
    `${target}/${manifest.name}: ${bytesText(movedBytes)} moved in ${msText(ms)}${resumed}`,
    `  chunks   ${chunks.moved} moved, ${chunks.known} there already`,
  ].join("\n");
}
