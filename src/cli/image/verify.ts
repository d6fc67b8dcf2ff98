// `minorfault image verify`: every byte, or only what says where everything is.

import type { Command } from "@commander-js/extra-typings";
import { type VerifyReport, verifyImage } from "../../image/index.ts";
import { bytesText, counted, msText } from "../bytes.ts";
import { parseDigest, runVerb, UNTOUCHED } from "./verb.ts";

/** The exit code of wrong sources. */
const DAMAGED = 4;

export function registerVerify(image: Command): void {
  image
    .command("verify")
    .description("checks every byte of an image against its hashes")
    .argument("<image>", "folder/name, https://…/name or s3://bucket/prefix/name")
    .option("--index", "only manifest, index, and that all packs are there")
    .option(
      "--digest <sha256>",
      "what the manifest's SHA-256 must be: refuses an image that was rolled back",
      parseDigest,
    )
    .option("--json", "print the report as JSON, and no progress")
    .option("--quiet", "print nothing but errors")
    .addHelpText(
      "after",
      `
Exit code: 0 all bytes are right, 4 some are not or can't be read.

Examples:
  $ minorfault image verify images/model
  $ minorfault image verify s3://bucket/images/model --index`,
    )
    .action((url, options) =>
      runVerb("verify", options, UNTOUCHED, async ({ signal, progress, image: find }) => {
        const { store, name } = await find(url);
        const bar = progress("verifying");
        const report = await verifyImage(store, name, {
          indexOnly: options.index ?? false,
          ...(options.digest !== undefined && { digest: options.digest }),
          signal,
          onProgress: (now) => bar.update(now),
        });
        return { json: report, text: textOf(url, report), exitCode: report.right ? 0 : DAMAGED };
      }),
    );
}

function textOf(url: string, report: VerifyReport): string {
  const { chunks, contentBytes, storedBytes, packs, ms } = report;
  const verdict = report.right ? "right" : `WRONG in ${report.problemCount} places`;
  return [
    `${url}: ${verdict}`,
    `  ${counted(chunks, "chunk")} of ${bytesText(contentBytes)} in ${counted(packs, "pack")}, ${bytesText(storedBytes)} stored, ` +
      `${msText(ms)}`,
    ...report.problems.map(({ message, code }) => `  ${code} ${message}`),
  ].join("\n");
}
