// The replays of a source: who is told of the end, and when, without a system or a thread that fetches.

import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { PAGE_SIZE } from "../../src/abi/memory.ts";
import { MinorfaultError } from "../../src/base/errors.ts";
import type { FaultLoop } from "../../src/pager/fault-loop.ts";
import type { FetchClient } from "../../src/pager/fetch/client.ts";
import type { FetchRequest, ReplayEnd, ReplayPiece } from "../../src/pager/fetch/link.ts";
import { WIRE_WORDS } from "../../src/pager/fetch/order.ts";
import { Replays } from "../../src/pager/fetch/replays.ts";

const PAGES = 64;

interface Told {
  readonly end: ReplayEnd;
  readonly pages: number;
}

/** A client whose memory takes whatever is placed in it. */
function clientOf(): { client: FetchClient; told: Told[] } {
  const told: Told[] = [];
  const region = { imageOffset: 0, pageSize: PAGE_SIZE, pageCount: PAGES };
  const loop = {
    port: {},
    installer: { isPutOff: false, isGuestGone: false, place: () => undefined },
    regions: { parts: [{ start: 0, until: PAGES * PAGE_SIZE, firstPage: 0, region }] },
  } as unknown as FaultLoop;
  const onReplayed = (end: ReplayEnd, bytes: number): number => told.push({ end, pages: bytes / PAGE_SIZE });
  return { client: { loop, bytesReplayed: 0, options: { onReplayed } } as unknown as FetchClient, told };
}

function replaysOf(): { replays: Replays; sent: FetchRequest[] } {
  const sent: FetchRequest[] = [];
  const link = { send: (request: FetchRequest) => void sent.push(request), receive: () => undefined };
  const words = new Int32Array(WIRE_WORDS);
  const replays = new Replays({
    staging: 0,
    keptSlots: 16,
    room: { slots: 16 },
    link,
    words,
    isAlone: () => true,
  });
  return { replays, sent };
}

/** One page, in a slot of its own. */
const piece = (page: number): ReplayPiece => ({
  kind: "piece",
  slot: page,
  runs: Uint32Array.of(page, 1),
  unproven: undefined,
});

/** A set that is being kept, and of which three pages have come; a client asks for it in the midst of that. */
function halfKept(): ReturnType<typeof replaysOf> & ReturnType<typeof clientOf> {
  const { replays, sent } = replaysOf();
  replays.keep("boot");
  replays.hear({ kind: "replaying", workingSet: "boot", slots: 8 });
  for (const page of [1, 2, 3]) replays.hear(piece(page));
  while (replays.isBusy) replays.install(PAGE_SIZE);
  const { client, told } = clientOf();
  replays.add(client, "boot");
  replays.hear(piece(4));
  return { replays, sent, client, told };
}

function installAll(replays: Replays): void {
  while (replays.isBusy) {
    replays.install(PAGE_SIZE);
    replays.settle();
  }
}

describe("the replays of a source", () => {
  test("who comes while a set is being kept is told of the end when all of it is installed, not before", () => {
    const { replays, told } = halfKept();
    replays.hear({ kind: "replayed", workingSet: "boot" });
    // What is fetched comes before what is kept, so that its end comes first as well.
    while (told.length === 0 && replays.isBusy) {
      replays.install(PAGE_SIZE);
      replays.settle();
    }
    assert.equal(replays.isBusy, false);
    assert.deepEqual(told, [{ end: { kind: "replayed", workingSet: "boot" }, pages: 4 }]);
    const later = clientOf();
    replays.add(later.client, "boot");
    installAll(replays);
    assert.deepEqual(
      later.told.map(({ pages }) => pages),
      [4],
      "all that was kept",
    );
    assert.equal(replays.isUnderWay, false);
  });

  test("a set that can't be read to its end is told as such, once, and nothing of it is kept", () => {
    const { replays, sent, told } = halfKept();
    const error = new MinorfaultError("ERR_SOURCE_CORRUPT", "Nothing like it");
    replays.hear({ kind: "replayed", workingSet: "boot", error });
    installAll(replays);
    assert.deepEqual(
      told.map(({ end }) => end.error?.code),
      ["ERR_SOURCE_CORRUPT"],
    );
    const freed = sent.flatMap((request) => (request.kind === "free" ? [request.slot] : []));
    assert.deepEqual(freed.sort(), [1, 2, 3, 4]);
    assert.equal(replays.isUnderWay, false);
  });

  test("who has left is told of nothing", () => {
    const { replays, client, told } = halfKept();
    replays.remove(client);
    replays.hear({ kind: "replayed", workingSet: "boot" });
    installAll(replays);
    assert.deepEqual(told, []);
  });
});
