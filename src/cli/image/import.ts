// `minorfault image import`: an image from a file of another format. Raw memory is the first.

import { type Command, Option } from "@commander-js/extra-typings";
import { buildImage, openRawFile } from "../../image/index.ts";
import { chunkOption, jsonOf, levelOption, parseAddress, textOf } from "./create.ts";
import { runVerb, UNTOUCHED } from "./verb.ts";

const EXAMPLES = `
Examples:
  $ minorfault image import images/vm memory.raw
  $ minorfault image import images/vm memory.raw --from raw --address 0x100000000`;

export function registerImport(image: Command): void {
  image
    .command("import")
    .description("builds an image from a memory file of another program")
    .argument("<image>", "where to build it")
    .argument("<file>", "the file; holes in it are not read")
    .addOption(
      new Option("--from <format>", "what the file is").choices(["raw"] as const).default("raw" as const),
    )
    .option("--address <address>", "where the guest has it", parseAddress, 0)
    .addOption(levelOption())
    .addOption(chunkOption())
    .option("--replace", "replace an image of the same name")
    .option("--json", "print the report as JSON, and no progress")
    .option("--quiet", "print nothing but errors")
    .addHelpText("after", EXAMPLES)
    .action((url, file, options) =>
      runVerb("import", options, UNTOUCHED, async ({ signal, progress, image: find }) => {
        const { source, extents } = openRawFile(file);
        try {
          const { store, name } = await find(url);
          const bar = progress("importing");
          const region = {
            name: "memory",
            guestAddress: options.address,
            source,
            ...(extents && { extents }),
          };
          const report = await buildImage(store, name, {
            regions: [region],
            ...(options.level === "none" ? { codec: "none" as const } : { level: options.level }),
            ...(options.chunk !== undefined && { chunkBytes: options.chunk }),
            ifAbsent: !options.replace,
            signal,
            onProgress: (now) => bar.update(now),
          });
          return { json: jsonOf(report), text: textOf(url, report) };
        } finally {
          await source.close();
        }
      }),
    );
}
