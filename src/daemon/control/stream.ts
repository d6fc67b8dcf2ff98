// Frames of the server's state, as server-sent events, for the page and `minorfault top`.
//
//   GET /v1/stream?guest=ID&everyMs=500         event: frame      data: {"at":…,"health":…,"guests":[…]}

import type { FastifyReply, FastifyRequest } from "fastify";
import * as v from "valibot";
import { MinorfaultError } from "../../base/errors.ts";
import { checked, integer, text } from "../../base/schema.ts";
import type { GuestTable } from "../guests.ts";
import { type Frame, type FrameGuest, stripOf } from "./frame.ts";
import type { Recorder } from "./recorder.ts";
import { healthJson, residentBytes } from "./status.ts";

/** LIMIT: who may watch at once. */
const WATCHERS_MAX = 16;
/** LIMIT: guests that have ended, in a frame. */
const ENDED_SHOWN = 20;
/** A frame may cost a twentieth of a CPU. */
const REST_PER_WORK = 19;

const query = v.strictObject({
  guest: v.optional(text(0, 64)),
  everyMs: v.optional(v.pipe(v.string(), v.toNumber(), integer(100, 60_000)), "500"),
});

export class Streams {
  readonly #table: GuestTable;
  readonly #recorder: Recorder;
  readonly #version: string;
  readonly #watchers = new Set<() => void>();

  constructor(table: GuestTable, recorder: Recorder, version: string) {
    this.#table = table;
    this.#recorder = recorder;
    this.#version = version;
  }

  readonly answer = (request: FastifyRequest, reply: FastifyReply): FastifyReply => {
    const { guest, everyMs } = checked(
      query,
      request.query,
      () =>
        new MinorfaultError("ERR_BAD_ARGUMENT", "In the query: guest=ID and everyMs=100..60000 are known"),
    );
    if (this.#watchers.size >= WATCHERS_MAX) {
      throw new MinorfaultError("ERR_LIMIT", `${WATCHERS_MAX} watch already`);
    }
    reply.hijack();
    const { raw } = reply;
    raw.writeHead(200, {
      "content-type": "text/event-stream; charset=utf-8",
      "cache-control": "no-store",
      "x-content-type-options": "nosniff",
    });
    let timer: NodeJS.Timeout;
    const send = (): void => {
      const began = performance.now();
      // Who reads slowly gets fewer frames, not a growing heap of them.
      if (raw.writableLength === 0) raw.write(`event: frame\ndata: ${JSON.stringify(this.frame(guest))}\n\n`);
      const rest = (performance.now() - began) * REST_PER_WORK;
      timer = setTimeout(send, Math.max(everyMs, rest));
      timer.unref();
    };
    const stop = (): void => {
      clearTimeout(timer);
      this.#watchers.delete(stop);
      raw.end();
    };
    this.#watchers.add(stop);
    raw.once("close", stop);
    raw.once("error", stop);
    send();
    return reply;
  };

  frame(guest: string | undefined): Frame {
    const now = Date.now();
    const history = guest === undefined ? undefined : this.#recorder.history(guest)?.toJSON();
    return {
      at: now,
      health: healthJson(this.#table, this.#version),
      guests: this.#table.list().map((status): FrameGuest => {
        const { id, name, image, state, pid, since, byteLength, statistics, pagers } = status;
        return {
          id,
          ...(name === undefined ? {} : { name }),
          image,
          state,
          pid,
          ageMs: now - since,
          byteLength,
          residentBytes: residentBytes(status),
          faults: statistics.faults,
          poisoned: statistics.outcomes.poisoned,
          bytesInstalled: statistics.bytesInstalled,
          waiting: statistics.waiting,
          p50Us: statistics.latencyUs.p50,
          p99Us: statistics.latencyUs.p99,
          strip: stripOf(this.#recorder.peek(id)?.map ?? []),
          pagers,
        };
      }),
      ended: this.#recorder.endedIds.slice(0, ENDED_SHOWN).flatMap((id) => {
        const ended = this.#recorder.history(id)?.toJSON();
        if (ended?.ended === undefined) return [];
        const { name, image } = ended;
        return [{ id, ...(name === undefined ? {} : { name }), image, reason: ended.ended.reason }];
      }),
      ...(history === undefined ? {} : { history }),
    };
  }

  close(): void {
    for (const stop of [...this.#watchers]) stop();
  }
}
