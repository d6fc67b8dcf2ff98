// `minorfault image import`: an image from a file of another format: raw memory, or a machine that QEMU saved.

import { type Command, Option } from "@commander-js/extra-typings";
import { importStream } from "../../guest/qemu/index.ts";
import {
  type BuildOptions,
  type BuildProgress,
  type BuildReport,
  buildImage,
  openRawFile,
} from "../../image/index.ts";
import type { ObjectStore } from "../../source/index.ts";
import { chunkOption, jsonOf, levelOption, parseAddress, textOf } from "./create.ts";
import { runVerb, UNTOUCHED } from "./verb.ts";

const EXAMPLES = `
Examples:
  $ minorfault image import images/vm memory.raw
  $ minorfault image import images/vm memory.raw --from raw --address 0x100000000
  $ minorfault image import images/vm saved.qemu --from qemu-stream     (of migrate, file:, mapped-ram or virsh save)`;

export function registerImport(image: Command): void {
  image
    .command("import")
    .description("builds an image from a memory file of another program")
    .argument("<image>", "where to build it")
    .argument("<file>", "the file; holes in it are not read")
    .addOption(
      new Option("--from <format>", "what the file is")
        .choices(["raw", "qemu-stream"] as const)
        .default("raw" as const),
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
        const { store, name } = await find(url, "to write");
        const bar = progress("importing");
        const building = {
          ...(options.level === "none" ? { codec: "none" as const } : { level: options.level }),
          ...(options.chunk !== undefined && { chunkBytes: options.chunk }),
          ifAbsent: !options.replace,
          signal,
          onProgress: (now: BuildProgress) => bar.update(now),
        };
        const report =
          options.from === "qemu-stream"
            ? await importStream(store, name, file, building)
            : await importRaw(store, name, file, options.address, building);
        return { json: jsonOf(report), text: textOf(url, report) };
      }),
    );
}

type Building = Omit<BuildOptions, "regions">;

async function importRaw(
  store: ObjectStore,
  name: string,
  file: string,
  guestAddress: number,
  building: Building,
): Promise<BuildReport> {
  const { source, extents } = openRawFile(file);
  try {
    const region = { name: "memory", guestAddress, source, ...(extents && { extents }) };
    return await buildImage(store, name, { ...building, regions: [region] });
  } finally {
    await source.close();
  }
}
