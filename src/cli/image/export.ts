// `minorfault image export`: a region as a raw, sparse file.

import type { Command } from "@commander-js/extra-typings";
import { exportImage, openImageIn } from "../../image/index.ts";
import { bytesText, msText } from "../bytes.ts";
import { runVerb } from "./verb.ts";

export function registerExport(image: Command): void {
  image
    .command("export")
    .description("writes a region of an image as a raw file, with holes where it is zeros")
    .argument("<image>", "folder/name, https://…/name or s3://bucket/prefix/name")
    .argument("<file>", "where to write it; it is there whole or not at all")
    .option("--region <name>", "which region, if the image has several")
    .option("--json", "print the report as JSON, and no progress")
    .option("--quiet", "print nothing but errors")
    .addHelpText("after", "\nExamples:\n  $ minorfault image export images/vm memory.raw --region low")
    .action((url, file, options) =>
      runVerb("export", options, "no file was written", async ({ signal, progress, image: find }) => {
        const { store, name } = await find(url);
        const opened = await openImageIn(store, name, { signal });
        try {
          const bar = progress("exporting");
          const report = await exportImage(opened, file, {
            ...(options.region !== undefined && { region: options.region }),
            signal,
            onProgress: (now) => bar.update(now),
          });
          const { region, byteLength, dataBytes, ms } = report;
          const text = `${file}: region ${region}, ${bytesText(byteLength)}, of which ${bytesText(dataBytes)} data, in ${msText(ms)}`;
          return { json: report, text };
        } finally {
          await opened.close();
        }
      }),
    );
}
