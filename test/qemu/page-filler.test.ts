// What a thread of the pool does with a slot: it is answered for when nobody writes into it any more, also if a chunk has
// failed; it is somebody else's then.

import assert from "node:assert/strict";
import { once } from "node:events";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { PageFiller } from "../../src/guest/qemu/page-filler.ts";
import { slotViews } from "../../src/guest/qemu/page-pool.ts";
import { openImage } from "../../src/image/index.ts";
import { openStore } from "../../src/source/index.ts";
import { buildSmallMachine, PAGE } from "./harness/small-machine.ts";

const CHUNK_PAGES = 16;

/** A web server that has files with ranges, and keeps back the answer to a read from `heldOffset` on until it is told. */
class SlowServer {
  readonly #folder: string;
  readonly #server = createServer((request, response) =>
    this.#answer(request.url!, request.headers.range, response),
  );
  readonly #heldOffset: number;
  #release: (() => void) | undefined;
  #onHeld: (() => void) | undefined;

  constructor(folder: string, heldOffset: number) {
    this.#folder = folder;
    this.#heldOffset = heldOffset;
  }

  async listen(): Promise<string> {
    this.#server.listen(0, "127.0.0.1");
    await once(this.#server, "listening");
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  /** Resolves when the read has been asked for. */
  held(): Promise<void> {
    return new Promise((resolve) => {
      this.#onHeld = resolve;
      if (this.#release !== undefined) resolve();
    });
  }

  release(): void {
    this.#release?.();
  }

  close(): void {
    this.#server.close();
    this.#server.closeAllConnections();
  }

  #answer(url: string, range: string | undefined, response: ServerResponse): void {
    const bytes = readFileSync(join(this.#folder, url));
    const headers = { "Accept-Ranges": "bytes", ETag: `"${bytes.byteLength}"` };
    const [, from, to] = /^bytes=(\d+)-(\d+)$/.exec(range ?? "") ?? [];
    if (from === undefined) {
      response.writeHead(200, { ...headers, "Content-Length": bytes.byteLength }).end(bytes);
      return;
    }
    const last = Math.min(Number(to), bytes.byteLength - 1);
    const part = bytes.subarray(Number(from), last + 1);
    const send = (): void => {
      const place = `bytes ${from}-${last}/${bytes.byteLength}`;
      response.writeHead(206, { ...headers, "Content-Length": part.byteLength, "Content-Range": place });
      response.end(part);
    };
    if (Number(from) !== this.#heldOffset) {
      send();
      return;
    }
    this.#release = send;
    this.#onHeld?.();
  }
}

test("a slot is answered for when nobody writes into it any more, also where a chunk has failed", async () => {
  const folder = mkdtempSync(join(tmpdir(), "mf-filler-"));
  const store = await openStore(join(folder, "images"));
  await buildSmallMachine(store, "vm");
  await store.close();
  const local = await openImage(join(folder, "images", "vm"));
  const [wrong, slow] = [(await local.locate(1))!, (await local.locate(2))!];
  const { digest } = local;
  await local.close();
  const path = join(folder, "images", "packs", wrong.pack);
  const bytes = readFileSync(path);
  bytes[wrong.offset]! ^= 1;
  writeFileSync(path, bytes);

  const server = new SlowServer(folder, slow.offset);
  const url = `${await server.listen()}/images/vm`;
  const slots = [0, 1].map(() => new SharedArrayBuffer(2 * CHUNK_PAGES * (PAGE + 9)));
  const pagesMax = 2 * CHUNK_PAGES;
  const filler = new PageFiller({ kind: "start", reader: 0, image: { url, digest }, slots, pagesMax });
  try {
    const request = { kind: "read", reader: 0, blockFirst: undefined } as const;
    let isAnswered = false;
    const both = filler.answer({
      ...request,
      slot: 0,
      range: { first: CHUNK_PAGES, count: 2 * CHUNK_PAGES },
    });
    void both.then(() => {
      isAnswered = true;
    });
    await server.held();
    // The same chunk once more: when that has been found to be wrong, it has been the first time.
    const alone = await filler.answer({
      ...request,
      slot: 1,
      range: { first: CHUNK_PAGES, count: CHUNK_PAGES },
    });
    assert.equal(alone.error?.code, "ERR_WRONG_BYTES");
    assert.equal(isAnswered, false, "the other chunk is still being read into the slot");
    server.release();
    assert.equal((await both).error?.code, "ERR_WRONG_BYTES");
    const { bytes: pages } = slotViews(slots[0]!, pagesMax);
    const first = Buffer.from(pages.buffer, (CHUNK_PAGES + 1) * PAGE, 4).readUInt32LE();
    assert.equal(first, 2 * CHUNK_PAGES + 1, "which had come by then");
  } finally {
    await filler.close();
    server.close();
    rmSync(folder, { recursive: true, force: true });
  }
});
