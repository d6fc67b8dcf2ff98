// A thread of write-thread.ts: does one thing after the other, and waits for the disk.

import { parentPort } from "node:worker_threads";
import { MinorfaultError } from "../base/errors.ts";
import { UnfinishedFile } from "./durable-file.ts";
import type { WriteReply, WriteRequest } from "./write-thread.ts";

/** Bytes after which the disk is told to begin with them. */
const BEGIN_BYTES = 4 * 2 ** 20;

interface Unfinished {
  readonly file: UnfinishedFile;
  begunBytes: number;
}

const files = new Map<number, Unfinished>();

parentPort?.on("message", (request: WriteRequest) => {
  parentPort?.postMessage(answer(request));
});

function answer(request: WriteRequest): WriteReply {
  const { id } = request;
  try {
    carryOut(request);
    return { id };
  } catch (error) {
    const { message } = error as Error;
    return { id, error: { code: error instanceof MinorfaultError ? error.code : "ERR_BUG", message } };
  }
}

function carryOut(request: WriteRequest): void {
  const { upload } = request;
  if (request.op === "begin") {
    files.set(upload, { file: new UnfinishedFile(request.path), begunBytes: 0 });
    return;
  }
  const unfinished = files.get(upload);
  if (request.op === "discard") {
    files.delete(upload);
    unfinished?.file.discard();
    return;
  }
  if (unfinished === undefined) throw new MinorfaultError("ERR_CLOSED", "The upload has ended");
  const { file } = unfinished;
  if (request.op === "write") {
    for (const piece of request.pieces) file.write(piece);
    if (file.byteLength - unfinished.begunBytes < BEGIN_BYTES) return;
    file.beginWriteback(unfinished.begunBytes);
    unfinished.begunBytes = file.byteLength;
    return;
  }
  file.finish({ ifAbsent: request.ifAbsent }, request.path);
  files.delete(upload);
  file.discard();
}
