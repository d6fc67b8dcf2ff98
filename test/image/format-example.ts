// The worked example of docs/image-format.md: a small image with nothing random in it, and how the page shows it.

import { buildImage } from "../../src/image/index.ts";
import { MemorySource } from "../../src/source/index.ts";
import { MemoryStore } from "./memory-store.ts";

const PAGE = 4096;

/** Four pages: a text and zeros; zeros; all 0x5A; the first one again. */
export async function exampleStore(): Promise<MemoryStore> {
  const bytes = new Uint8Array(4 * PAGE);
  bytes.set(new TextEncoder().encode("minorfault"));
  bytes.fill(0x5a, 2 * PAGE, 3 * PAGE);
  bytes.copyWithin(3 * PAGE, 0, PAGE);
  const store = new MemoryStore();
  let packs = 0;
  await buildImage(store, "example", {
    regions: [{ name: "ram", guestAddress: 0x10000, source: new MemorySource(bytes) }],
    chunkBytes: PAGE,
    codec: "none",
    created: new Date("2026-01-01T00:00:00Z"),
    nonce: () => new Uint8Array(16).fill(++packs),
  });
  return store;
}

/** The blocks of the page, by their titles. */
export async function exampleBlocks(): Promise<Map<string, string>> {
  const store = await exampleStore();
  const manifest = store.objects.get("manifests/example.json");
  const text = Buffer.from(manifest ?? []).toString();
  const root = (JSON.parse(text) as { root: { pack: string } }).root.pack;
  const blocks = new Map<string, string>([["manifests/example.json", text.trimEnd()]]);
  for (const [key, bytes] of store.objects) {
    if (key.startsWith("packs/")) blocks.set(key.endsWith(root) ? "root pack" : "data pack", hexDump(bytes));
  }
  return blocks;
}

/** Lines of 16 bytes; lines like the one before are left out, as `hexdump -C` does it. */
function hexDump(bytes: Uint8Array): string {
  const lines: string[] = [];
  let before = "";
  for (let at = 0; at < bytes.byteLength; at += 16) {
    const part = Buffer.from(bytes.subarray(at, at + 16));
    const hex = part.toString("hex").replace(/../g, "$& ").trimEnd();
    if (hex === before) {
      if (lines[lines.length - 1] !== "*") lines.push("*");
      continue;
    }
    before = hex;
    const text = part.toString("latin1").replace(/[^\x20-\x7e]/g, ".");
    lines.push(`${at.toString(16).padStart(8, "0")}  ${hex.padEnd(47)}  |${text}|`);
  }
  return [...lines, bytes.byteLength.toString(16).padStart(8, "0")].join("\n");
}
