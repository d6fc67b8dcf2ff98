// Steps that are ioctls on ranges: registering, filling, waking, protecting.

import { readSigned, type Struct, uffdio, type Word } from "../../src/abi/structs.ts";
import { UFFDIO } from "../../src/abi/userfaultfd.ts";
import { HUGE_AREA } from "./arena.ts";
import { resultText, THREADS } from "./host.ts";
import { areaOf, byteAt, type Span, span } from "./places.ts";
import { refuseBareWake, refuseUnregister, refuseWake, writerWaits } from "./rules.ts";
import { actorOf, handleOf, type Resolved, type Scene, Skip } from "./scene.ts";
import type { Fill, Step } from "./steps.ts";

type Of<Kind extends Step["kind"]> = Extract<Step, { kind: Kind }>;

const BAD_POINTER = 0x1000;
/** What stands in an output field before the call; no call answers it. */
const UNTOUCHED = 0x5aa5_5aa5_5aa5n;

export function register(scene: Scene, step: Of<"register">): Resolved {
  return onRange(scene, step, step.place, `REGISTER mode ${step.mode}`, {
    request: UFFDIO.REGISTER,
    struct: uffdio.register,
    fields: ({ start, length }) => ({ start, len: length, mode: step.mode, ioctls: UNTOUCHED }),
    output: "ioctls",
  });
}

export function unregister(scene: Scene, step: Of<"unregister" | "wake">): Resolved {
  const refusal = refuseUnregister(scene.host);
  if (refusal !== undefined) return new Skip(refusal);
  return onRange(scene, step, step.place, "UNREGISTER", {
    request: UFFDIO.UNREGISTER,
    struct: uffdio.range,
    fields: ({ start, length }) => ({ start, len: length }),
  });
}

export function wake(scene: Scene, step: Of<"unregister" | "wake">): Resolved {
  const refusal = refuseBareWake(scene.host);
  if (refusal !== undefined) return new Skip(refusal);
  return onRange(scene, step, step.place, "WAKE", {
    request: UFFDIO.WAKE,
    struct: uffdio.range,
    fields: ({ start, length }) => ({ start, len: length }),
  });
}

export function writeprotect(scene: Scene, step: Of<"writeprotect">): Resolved {
  return onRange(scene, step, step.place, `WRITEPROTECT mode ${step.mode}`, {
    request: UFFDIO.WRITEPROTECT,
    struct: uffdio.writeprotect,
    fields: ({ start, length }) => ({ start, len: length, mode: step.mode }),
  });
}

interface Request<F extends string> {
  readonly request: number;
  readonly struct: Struct<F>;
  readonly fields: (span: Span) => Partial<Record<F, Word>>;
  readonly output?: F;
}

/** An ioctl that never waits: the control thread makes it. */
function onRange<F extends string>(
  scene: Scene,
  step: Extract<Step, { handle: number }>,
  place: Parameters<typeof span>[0],
  what: string,
  request: Request<F>,
): Resolved {
  const actor = actorOf(scene, step);
  const which = handleOf(actor, step.handle);
  if (which === undefined) return new Skip("no userfaultfd is open");
  const refusal = refuseWake(scene.host);
  if (refusal !== undefined) return new Skip(refusal);
  scene.order.wake(scene.host);
  const where = span(place);
  return {
    name: what.split(" ")[0] ?? what,
    text: `${what} u${which.index} ${where.text}`,
    actor: actor.index,
    run: (host, actor) => {
      const { at, address } = actor.scratch(THREADS);
      request.struct.write(actor.view, at, request.fields(where));
      const fd = actor.handles[which.index]?.fd ?? -1;
      const result = actor.process.ioctl(fd, request.request, address);
      const { output } = request;
      host.say(
        `${resultText(result)}${output === undefined ? "" : outputText(actor.view, at, request.struct, output)}`,
      );
    },
  };
}

const FILLS: Readonly<
  Record<Fill, { readonly request: number; readonly struct: Struct<string>; readonly output: string }>
> = {
  copy: { request: UFFDIO.COPY, struct: uffdio.copy, output: "copy" },
  zeropage: { request: UFFDIO.ZEROPAGE, struct: uffdio.zeropage, output: "zeropage" },
  continue: { request: UFFDIO.CONTINUE, struct: uffdio.continue, output: "mapped" },
  poison: { request: UFFDIO.POISON, struct: uffdio.poison, output: "updated" },
  move: { request: UFFDIO.MOVE, struct: uffdio.move, output: "move" },
};

export function fill(scene: Scene, step: Of<"fill">): Resolved {
  const actor = actorOf(scene, step);
  const which = handleOf(actor, step.handle);
  if (which === undefined) return new Skip("no userfaultfd is open");
  const refusal = refuseWake(scene.host);
  if (refusal !== undefined) return new Skip(refusal);
  const thread = actor.idle(step.thread);
  if (thread === undefined) return new Skip("no thread is idle");
  const where = span(step.place);
  if (step.fill === "move" && where.area.index === HUGE_AREA) return new Skip("MOVE knows small pages");
  if (step.fill === "copy" && writerWaits(scene.host, scene.order, step.from.area)) {
    return new Skip("a writer waits where the bytes would be taken from");
  }
  scene.order.wake(scene.host);
  const { request, struct, output } = FILLS[step.fill];
  const takes = step.fill === "copy" || step.fill === "move";
  const source = byteAt(areaOf(step.from.area), step.from.page, step.from.offset);
  const from = takes
    ? ` from ${step.from.area}:${step.from.page}${step.from.offset === 0 ? "" : `+${step.from.offset}`}`
    : "";
  const bad = step.pointer === "bad";
  const readOnly = step.pointer === "read-only";
  return {
    name: step.fill.toUpperCase(),
    text: `${step.fill.toUpperCase()} mode ${step.mode} u${which.index} ${where.text}${from}${
      bad ? " with a bad pointer" : readOnly ? " with its argument in read-only memory" : ""
    } by thread ${thread}`,
    actor: actor.index,
    run: (host, actor) => {
      const { at, address } = actor.scratch(thread);
      const { start, length } = where;
      const range = takes ? { dst: start, src: source } : { start };
      struct.write(actor.view, at, { ...range, len: length, mode: step.mode, [output]: UNTOUCHED });
      const fd = actor.handles[which.index]?.fd ?? -1;
      const finish = (value: number) =>
        `${step.fill} ${resultText(value)}${bad ? "" : outputText(actor.view, at, struct, output)}`;
      host.begin(
        actor,
        {
          kind: "call",
          name: "ioctl",
          args: [fd, request, bad ? BAD_POINTER : readOnly ? actor.seal(at, struct.size) : address],
        },
        { thread, family: "fill", place: step.from.area, finish },
      );
    },
  };
}

function outputText<F extends string>(view: DataView, at: number, struct: Struct<F>, output: F): string {
  const offset = at + struct.offset[output];
  if (view.getBigUint64(offset, true) === UNTOUCHED) return "/~";
  return `/${readSigned(view, offset)}`;
}
