// `minorfault image working-set`: the pages that a guest needs first, stored with the image in that order.

import { readFileSync } from "node:fs";
import type { Command } from "@commander-js/extra-typings";
import { MinorfaultError } from "../../base/errors.ts";
import { addWorkingSet, openImageIn, removeWorkingSet } from "../../image/index.ts";
import { bytesText, counted } from "../bytes.ts";
import { runVerb, UNTOUCHED } from "./verb.ts";

const EXAMPLES = `
Without an option the working sets of the image are listed. The file of --add has one offset a line, in the order in
which the pages were touched: bytes in the image's flat space, decimal or 0x…; lines that begin with # are left out.

Examples:
  $ minorfault image working-set images/vm
  $ minorfault image working-set images/vm boot --add touched.txt
  $ minorfault image working-set images/vm boot --remove`;

export function registerWorkingSet(image: Command): void {
  image
    .command("working-set")
    .description("lists, adds or removes working sets: pages in the order in which they are needed")
    .argument("<image>", "folder/name or s3://bucket/prefix/name")
    .argument("[name]", "of the working set")
    .option("--add <file>", "offsets of pages in the order in which they were touched; - is stdin")
    .option("--remove", "take it away")
    .option("--replace", "with --add: replace one of the same name")
    .option("--json", "print the result as JSON")
    .option("--quiet", "print nothing but errors")
    .addHelpText("after", EXAMPLES)
    .action((url, name, options) =>
      runVerb("working-set", options, UNTOUCHED, async ({ signal, image: find }) => {
        const { store, name: imageName } = await find(url);
        if ((options.add !== undefined || options.remove) && name === undefined) {
          throw new MinorfaultError("ERR_BAD_ARGUMENT", "The working set needs a name");
        }
        if (options.add !== undefined && name !== undefined) {
          const offsets = readOffsets(options.add);
          const replace = options.replace ?? false;
          const set = await addWorkingSet(store, imageName, name, offsets, { signal, replace });
          return {
            json: set,
            text: `${name}: ${counted(set.pages, "page")}, ${bytesText(set.packBytes)} stored`,
          };
        }
        if (options.remove && name !== undefined) {
          await removeWorkingSet(store, imageName, name);
          return { json: { removed: name }, text: `${name}: removed` };
        }
        const opened = await openImageIn(store, imageName, { signal });
        await opened.close();
        const sets = opened.manifest.workingSets.filter((set) => name === undefined || set.name === name);
        const lines = sets.map(
          (set) => `${set.name}: ${counted(set.pages, "page")}, ${bytesText(set.packBytes)} stored`,
        );
        return { json: sets, text: lines.join("\n") };
      }),
    );
}

function readOffsets(path: string): number[] {
  let text: string;
  try {
    text = readFileSync(path === "-" ? 0 : path, "utf8");
  } catch (cause) {
    throw new MinorfaultError("ERR_SOURCE_MISSING", `${path} can not be read`, { cause });
  }
  return text
    .split("\n")
    .map((line) => line.trim())
    .filter((line) => line !== "" && !line.startsWith("#"))
    .map((line) => {
      if (/^(\d+|0x[0-9a-f]+)$/i.test(line)) return Number(line);
      throw new MinorfaultError("ERR_BAD_ARGUMENT", `${JSON.stringify(line.slice(0, 40))} is not an offset`);
    });
}
