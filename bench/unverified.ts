// The product without verification, to see what that costs: a copy of it in which hashes of content are not compared, nor
// made. It exists while a benchmark runs, beside the one that verifies, and over the same images.

import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import type { LoadMeter } from "./load.ts";
import type { RestoreStage } from "./restore-stage.ts";

/** Where content is verified, and the line behind which it has not been. */
const VERIFIES = { file: "src/image/content.js", line: /const hash = sha256\(bytes\);/g };

export interface Unverified {
  readonly stage: RestoreStage;
  close(): void;
}

/** A stage over the files of another one, whose pagers believe what they read. */
export async function unverified(verified: RestoreStage, meter: LoadMeter): Promise<Unverified> {
  const product = fileURLToPath(new URL("..", import.meta.url));
  // Within it: what it needs besides itself is found from there.
  const copy = mkdtempSync(join(product, "unverified-"));
  const remove = (): void => rmSync(copy, { recursive: true, force: true });
  process.once("exit", remove);
  for (const part of ["src", "bench"]) cpSync(join(product, part), join(copy, part), { recursive: true });
  const file = join(copy, VERIFIES.file);
  const text = readFileSync(file, "utf8");
  if (text.match(VERIFIES.line)?.length !== 1) throw new Error(`${VERIFIES.file} verifies in another way`);
  writeFileSync(file, text.replace(VERIFIES.line, "return bytes; $&"));
  const url = pathToFileURL(join(copy, "bench/restore-stage.js")).href;
  const loaded = (await import(url)) as { readonly RestoreStage: typeof RestoreStage };
  const stage = await loaded.RestoreStage.over(verified.plan, meter);
  return {
    stage,
    close() {
      stage.close();
      process.off("exit", remove);
      remove();
    },
  };
}
