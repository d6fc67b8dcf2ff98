// Brings the image of a pager to where its threads can use it: a file is opened, a source gets a thread that fetches.

import { fstatSync } from "node:fs";
import type { MessagePort } from "node:worker_threads";
import { PAGE_SIZE } from "../abi/memory.ts";
import { MinorfaultError } from "../base/errors.ts";
import { close, local, open } from "../linux/index.ts";
import type { WorkOrder } from "./control.ts";
import { openRemote } from "./fetch/remote.ts";
import type { PagerOptions } from "./options.ts";

export interface PreparedImage {
  readonly place: WorkOrder["image"];
  readonly transfer: readonly MessagePort[];
  /** When the pager serves. */
  started(): void;
  /** When the pager has ended. */
  close(): Promise<void>;
}

export async function prepareImage(options: PagerOptions): Promise<PreparedImage> {
  const { image, source, regions, trace } = options;
  if (source !== undefined) {
    const pageBytes = Math.max(...regions.map(({ pageSize = PAGE_SIZE }) => pageSize));
    // What a replay has brought is not touched by anybody: no trace would show it.
    const remote = await openRemote(source, pageBytes, source.replay ?? !trace);
    const { order, transfer } = remote;
    return {
      place: { fetch: order, byteLength: order.byteLength },
      transfer,
      started: () => undefined,
      close: () => remote.close(),
    };
  }
  if (image === undefined)
    throw new MinorfaultError("ERR_BUG", "Options without image and source were not refused");
  const nothing = { transfer: [], started: () => undefined, close: async () => undefined };
  if (!("path" in image)) return { place: image, ...nothing };
  const descriptor = open(local, image.path);
  const place = { descriptor, byteLength: fstatSync(descriptor).size };
  // The thread has mapped it then, and a mapping does not need its descriptor.
  return { ...nothing, place, started: () => close(local, descriptor) };
}
