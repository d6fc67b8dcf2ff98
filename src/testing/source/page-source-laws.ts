// The laws of page sources (src/source/page-source.ts), for any implementation.

import assert from "node:assert/strict";
import { MinorfaultError } from "../../base/errors.ts";
import { Random } from "../../base/random.ts";
import type { PageSource } from "../../source/page-source.ts";
import type { Law } from "./law.ts";

export interface SourceSubject {
  /** What the source reads as: some ten thousand bytes at least. */
  readonly content: Uint8Array;
  /** For the random reads; printed when a law fails. */
  readonly seed: number;
  open(): Promise<PageSource>;
  /** Replaces what `open` finds by `content`; absent where that cannot be. */
  replace?(content: Uint8Array): Promise<void>;
}

const RANDOM_READS = 60;
const AT_ONCE = 12;

/** Opens, runs and closes whatever happens. */
async function using(subject: SourceSubject, body: (source: PageSource) => Promise<void>): Promise<void> {
  const source = await subject.open();
  try {
    await body(source);
  } finally {
    await source.close();
  }
}

async function same(source: PageSource, content: Uint8Array, offset: number, length: number): Promise<void> {
  const target = new Uint8Array(length).fill(0xa5);
  await source.read(offset, target);
  const wanted = content.subarray(offset, offset + length);
  assert.ok(Buffer.compare(target, wanted) === 0, `${length} bytes at ${offset} are others`);
}

function code(expected: string) {
  return (error: unknown) => {
    assert.ok(error instanceof MinorfaultError, `not an error of the catalogue: ${error}`);
    assert.equal(error.code, expected);
    return true;
  };
}

export const pageSourceLaws: readonly Law<SourceSubject>[] = [
  {
    law: "its length is that of the content",
    check: (subject) =>
      using(subject, async (source) => assert.equal(source.byteLength, subject.content.byteLength)),
  },
  {
    law: "it has a name",
    check: (subject) => using(subject, async (source) => assert.notEqual(source.name, "")),
  },
  {
    law: "the whole content comes in one read",
    check: (subject) =>
      using(subject, (source) => same(source, subject.content, 0, subject.content.byteLength)),
  },
  {
    law: "first byte, last byte, nothing at either end",
    check: (subject) =>
      using(subject, async (source) => {
        const { byteLength } = subject.content;
        await same(source, subject.content, 0, 1);
        await same(source, subject.content, byteLength - 1, 1);
        await same(source, subject.content, 0, 0);
        await same(source, subject.content, byteLength, 0);
      }),
  },
  {
    law: "reads at random places, many at once, each get their own bytes",
    check: (subject) =>
      using(subject, async (source) => {
        const random = new Random(subject.seed);
        const { byteLength } = subject.content;
        for (let done = 0; done < RANDOM_READS; done += AT_ONCE) {
          await Promise.all(
            Array.from({ length: AT_ONCE }, () => {
              const offset = random.below(byteLength);
              return same(
                source,
                subject.content,
                offset,
                random.below(Math.min(9000, byteLength - offset) + 1),
              );
            }),
          );
        }
      }),
  },
  {
    law: "a view into a larger buffer is filled, and nothing beside it",
    check: (subject) =>
      using(subject, async (source) => {
        const buffer = new Uint8Array(300).fill(0xa5);
        await source.read(7, buffer.subarray(100, 200));
        assert.ok(Buffer.compare(buffer.subarray(100, 200), subject.content.subarray(7, 107)) === 0);
        assert.ok(buffer.subarray(0, 100).every((byte) => byte === 0xa5));
        assert.ok(buffer.subarray(200).every((byte) => byte === 0xa5));
      }),
  },
  {
    law: "a read beyond the end, or at no offset, is refused as the caller's mistake",
    check: (subject) =>
      using(subject, async (source) => {
        const { byteLength } = subject.content;
        for (const offset of [byteLength, byteLength - 1, -1, 0.5, Number.NaN, 2 ** 60]) {
          await assert.rejects(
            async () => source.read(offset, new Uint8Array(2)),
            code("ERR_OUT_OF_RANGE"),
            `${offset}`,
          );
        }
      }),
  },
  {
    law: "a signal that was aborted before rejects with its reason and leaves the target alone",
    check: (subject) =>
      using(subject, async (source) => {
        const reason = new Error("enough");
        const target = new Uint8Array(64).fill(0xa5);
        await assert.rejects(
          async () => source.read(0, target, AbortSignal.abort(reason)),
          (error) => error === reason,
        );
        assert.ok(target.every((byte) => byte === 0xa5));
      }),
  },
  {
    law: "a signal that is aborted during a read: the bytes, or the reason; later reads go on",
    check: (subject) =>
      using(subject, async (source) => {
        const controller = new AbortController();
        const reason = new Error("enough");
        const reading = source.read(0, new Uint8Array(4096), controller.signal);
        controller.abort(reason);
        await reading.catch((error: unknown) => assert.equal(error, reason));
        await same(source, subject.content, 0, 4096);
      }),
  },
  {
    law: "the synchronous read, where there is one, reads the same",
    check: (subject) =>
      using(subject, async (source) => {
        if (source.readSync === undefined) return;
        const target = new Uint8Array(777);
        source.readSync(123, target);
        assert.ok(Buffer.compare(target, subject.content.subarray(123, 900)) === 0);
        assert.throws(
          () => source.readSync?.(subject.content.byteLength, new Uint8Array(1)),
          code("ERR_OUT_OF_RANGE"),
        );
      }),
  },
  {
    law: "it can be closed twice, and a read afterwards says that it is closed",
    check: async (subject) => {
      const source = await subject.open();
      await source.close();
      await source.close();
      await assert.rejects(async () => source.read(0, new Uint8Array(1)), code("ERR_CLOSED"));
    },
  },
  {
    law: "of a replaced object nothing new is mixed in: the old bytes, or ERR_SOURCE_CHANGED",
    check: async (subject) => {
      if (subject.replace === undefined) return;
      const source = await subject.open();
      try {
        await same(source, subject.content, 0, 4096);
        const other = subject.content.map((byte) => byte ^ 0xff);
        await subject.replace(other);
        await same(source, subject.content, 4096, 4096).catch(code("ERR_SOURCE_CHANGED"));
        const again = await subject.open();
        try {
          await same(again, other, 4096, 4096);
        } finally {
          await again.close();
        }
      } finally {
        await source.close();
        await subject.replace(subject.content);
      }
    },
  },
];
