// `minorfault image …`: one verb a file.

import type { Command } from "@commander-js/extra-typings";
import { registerCreate } from "./image/create.ts";
import { registerDiff } from "./image/diff.ts";
import { registerExport } from "./image/export.ts";
import { registerImport } from "./image/import.ts";
import { registerInspect, registerList } from "./image/inspect.ts";
import { registerPrune, registerRemove } from "./image/prune.ts";
import { registerPull, registerPush } from "./image/push-pull.ts";
import { registerVerify } from "./image/verify.ts";
import { registerWorkingSet } from "./image/working-set.ts";

export function registerImage(program: Command): void {
  const image = program
    .command("image")
    .description("builds, ships, verifies, compares and prunes memory images")
    .addHelpText(
      "after",
      "\nAn IMAGE is a store with a name in it: folder/name, https://…/name, s3://bucket/prefix/name.\n" +
        "docs/image-format.md describes what is stored.",
    );
  for (const register of [
    registerCreate,
    registerImport,
    registerInspect,
    registerList,
    registerVerify,
    registerDiff,
    registerWorkingSet,
    registerExport,
    registerRemove,
    registerPrune,
    registerPush,
    registerPull,
  ]) {
    register(image as unknown as Command);
  }
}
