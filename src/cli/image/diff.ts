// `minorfault image diff`: where two images differ.

import type { Command } from "@commander-js/extra-typings";
import { hex } from "../../base/errors.ts";
import { type DiffOptions, diffImages, openImageIn } from "../../image/index.ts";
import { bytesText, counted } from "../bytes.ts";
import { runVerb, UNTOUCHED } from "./verb.ts";

const RANGES_SHOWN = 20;

export function registerDiff(image: Command): void {
  image
    .command("diff")
    .description("says which pages of two images differ; only chunks whose hashes differ are read")
    .argument("<a>", "an image")
    .argument("<b>", "another one, of the same size and chunk")
    .option("--json", "print all ranges as JSON")
    .option("--quiet", "only the exit code")
    .addHelpText(
      "after",
      `
Exit code: 0 the images are the same, 1 they differ.

Examples:
  $ minorfault image diff images/vm images/vm2
  $ minorfault image diff images/vm https://host/images/vm --json | jq .pages`,
    )
    .action((left, right, options) =>
      runVerb("diff", options, UNTOUCHED, async ({ signal, progress, image: find }) => {
        const [a, b] = [await find(left), await find(right)];
        const images = [
          await openImageIn(a.store, a.name, { signal }),
          await openImageIn(b.store, b.name, { signal }),
        ] as const;
        try {
          const bar = progress("comparing");
          const onProgress: DiffOptions["onProgress"] = (now) => bar.update(now);
          const report = await diffImages(...images, { signal, onProgress });
          const { same, pages, changed, added, removed, chunks, ranges, rangeCount } = report;
          const more = rangeCount - Math.min(ranges.length, RANGES_SHOWN);
          const lines = [
            `${counted(pages, "page")} ${pages === 1 ? "differs" : "differ"} in ${counted(chunks, "chunk")}: ${changed} changed, ${added} added, ${removed} removed`,
            ...ranges
              .slice(0, RANGES_SHOWN)
              .map(({ start, until }) => `  ${hex(start)}  ${bytesText(until - start)}`),
            ...(more > 0 ? [`  and ${more} more ranges (--json has them)`] : []),
          ];
          return { json: report, text: same ? "the same" : lines.join("\n"), exitCode: same ? 0 : 1 };
        } finally {
          for (const opened of images) await opened.close();
        }
      }),
    );
}
