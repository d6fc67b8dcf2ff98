// Makes the code of a fetch hot before there is one: what a unit and a piece of a replay go through, on made-up memory.

import { createHash } from "node:crypto";
import { PAGE_SIZE } from "../../abi/memory.ts";
import { decodeManifest, encodeManifest, type Manifest } from "../../image/manifest.ts";
import { local } from "../../linux/index.ts";
import { compress, decompress } from "../../source/index.ts";
import { type Stage, setStage } from "../rehearsal.ts";
import { REPLAY_BYTES } from "./link.ts";
import { ReplayInstaller } from "./replay.ts";

const UNIT_BYTES = 64 * 1024;
const UNITS = 48;
const PIECES = 16;
const MANIFESTS = 8;

/** For the thread that fetches: verifies and decompresses. */
export function rehearseFetching(): void {
  rehearseOpening();
  const content = new Uint8Array(UNIT_BYTES);
  for (let at = 0; at < UNIT_BYTES; at++) content[at] = (at * at) >> 8;
  const stored = compress(content);
  const target = new Uint8Array(UNIT_BYTES);
  for (let unit = 0; unit < UNITS; unit++) {
    target.set(decompress(stored, UNIT_BYTES));
    createHash("sha256").update(target).digest();
  }
}

/** What opening an image takes longest for, the first time. */
function rehearseOpening(): void {
  const name = "rehearsal";
  const hash = "0".repeat(64);
  const manifest: Manifest = {
    format: "minorfault-image",
    version: 1,
    requires: [],
    name,
    created: new Date(0).toISOString(),
    chunkBytes: UNIT_BYTES,
    codec: "zstd",
    level: 3,
    byteLength: UNIT_BYTES,
    regions: [
      {
        name,
        guestAddress: 0,
        byteLength: UNIT_BYTES,
        dataBytes: UNIT_BYTES,
        offset: 0,
        pageSize: PAGE_SIZE,
      },
    ],
    root: { pack: hash, packBytes: PAGE_SIZE, sha256: hash },
    notes: {},
    attachments: [],
    workingSets: [{ name, pack: hash, packBytes: PAGE_SIZE, pages: 1, listBytes: 40, listSha256: hash }],
  };
  for (let time = 0; time < MANIFESTS; time++) decodeManifest(encodeManifest(manifest), name);
}

/** For the thread that serves: installs runs of single pages, as a working set that was touched at random has them. */
export function rehearseInstalling(): void {
  const pages = REPLAY_BYTES / PAGE_SIZE;
  const stage: Stage = setStage(pages);
  const staging = local.share(REPLAY_BYTES);
  try {
    const installer = new ReplayInstaller(staging.address, () => undefined);
    for (let piece = 0; piece < PIECES; piece++) {
      const runs: number[] = [];
      for (let page = 0; page < pages; page++) runs.push(((page * 7) % pages) * PAGE_SIZE, PAGE_SIZE, 0);
      installer.take({ kind: "piece", slot: 0, runs }, [{ loop: stage.loop, bytesReplayed: 0 }]);
      installer.install(REPLAY_BYTES);
      stage.reset();
    }
  } finally {
    staging.close();
    stage.close();
  }
}
