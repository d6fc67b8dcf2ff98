// One ioctl of a userfaultfd as a task: its struct in memory that can be good, bad or read-only, and the answer
// with what the system left in the output field.
//
// Asked by no thread in particular and with a good pointer, the request goes through the product's `Ioctls`; by
// a thread of its own, or with a pointer that is the point of the case, the struct is written by the codec here.

import type { Struct, Word } from "../../../abi/structs.ts";
import { Ioctls } from "../../../uffd/ioctls.ts";
import type { Actor } from "../actor.ts";
import type { Arguments } from "../arguments.ts";
import { CaseProblem } from "../problem.ts";
import { type Action, answer, type Token } from "../task.ts";
import { descriptorOption } from "./descriptor-option.ts";

/** What stands in an output field before the call; no system answers it. */
const UNTOUCHED = 0x5aa5_5aa5_5aa5_5aa5n;
/** Room for any struct of the header. */
const STRUCT_BYTES = 128;
const BAD_POINTER = 0x10000;

export type Fields<F extends string> = Readonly<Record<F, Word>>;

export interface Request<F extends string> {
  readonly number: number;
  readonly struct: Struct<F>;
  /** The field that the system answers in, and how it is printed: the mask of REGISTER is a mask. */
  readonly output?: { readonly field: NoInfer<F>; readonly format: "signed" | "mask" };
  readonly fields: (actor: Actor) => Partial<Fields<NoInfer<F>>>;
  readonly typed: (ioctls: Ioctls, fields: Fields<NoInfer<F>>) => TypedAnswer;
  /** Tokens for the whole struct afterwards, instead of the output field. */
  readonly wholeStruct?: boolean;
}

/** What the typed ioctls say, as far as it can be compared with the raw bytes. */
export interface TypedAnswer {
  readonly errno: number;
  readonly bytes?: number;
  readonly ioctls?: bigint | undefined;
}

/** Takes `arg=`, `via=` and `errno`, which every ioctl verb has, lets the verb take the rest, and makes the task. */
export function requestAction<F extends string>(words: Arguments, build: () => Request<F>): Action {
  const pointer = words.optionOf("arg", ["bad", "readonly"]);
  const errnoOnly = words.flag("errno");
  const descriptor = descriptorOption(words);
  const request = build();
  words.end();
  return {
    kind: "task",
    task(actor) {
      const { fd } = descriptor(actor);
      const fields = prepared(request, actor);
      const slot = actor.allocate(STRUCT_BYTES);
      const { scratch } = actor.process;
      request.struct.write(scratch.view, slot, fields);
      const address = pointerTo(actor, slot, request.struct.size, pointer);
      const render = (result: number): Token[] => {
        const errno = result < 0 ? -result : 0;
        if (request.wholeStruct) return [answer(errno), structToken(request.struct, scratch.view, slot)];
        if (errnoOnly || pointer !== undefined) return [answer(errno)];
        return [withField(request, errno, scratch.view, slot)];
      };
      const operation = { kind: "call", name: "ioctl", args: [fd, request.number, address] } as const;
      if (pointer !== undefined || request.wholeStruct) return { operation, render, prompt: true };
      const typed = (): Token[] => {
        const said = request.typed(new Ioctls(actor.process, fd, slot), fields);
        agree(request, said, scratch.view, slot);
        return render(-said.errno);
      };
      return { operation, render, typed };
    },
  };
}

function prepared<F extends string>(request: Request<F>, actor: Actor): Fields<F> {
  const output = request.output === undefined ? {} : { [request.output.field]: UNTOUCHED };
  return { ...request.fields(actor), ...output } as Fields<F>;
}

function pointerTo(actor: Actor, slot: number, byteLength: number, pointer: "bad" | "readonly" | undefined) {
  const { scratch } = actor.process;
  if (pointer === undefined) return scratch.address + slot;
  if (pointer === "bad") return BAD_POINTER;
  return actor.readOnly(scratch.bytes.slice(slot, slot + byteLength));
}

function withField<F extends string>(
  { struct, output }: Request<F>,
  errno: number,
  view: DataView,
  slot: number,
): Token {
  const token = answer(errno);
  if (output === undefined) return token;
  const at = slot + struct.offset[output.field];
  const raw = view.getBigUint64(at, true);
  const shown =
    raw === UNTOUCHED
      ? "~"
      : output.format === "mask"
        ? `0x${raw.toString(16)}`
        : String(view.getBigInt64(at, true));
  return { ...token, value: `${token.value}/${shown}` };
}

function structToken<F extends string>(struct: Struct<F>, view: DataView, slot: number): Token {
  const values = Object.values<bigint>(struct.read(view, slot));
  return { value: `{${values.map((value) => `0x${value.toString(16)}`).join(",")}}` };
}

/** The typed answer must say what the bytes say. */
function agree<F extends string>(
  { struct, output }: Request<F>,
  said: TypedAnswer,
  view: DataView,
  slot: number,
): void {
  if (output === undefined) return;
  const at = slot + struct.offset[output.field];
  const raw = view.getBigUint64(at, true);
  const done = Number(view.getBigInt64(at, true));
  const bytes = raw === UNTOUCHED ? 0 : Math.max(0, done);
  if (said.bytes !== undefined && said.bytes !== bytes) {
    throw new CaseProblem(`The typed ioctl says ${said.bytes} bytes, its struct says ${bytes}`);
  }
  const mask = raw === UNTOUCHED ? undefined : raw;
  if ("ioctls" in said && output.format === "mask" && said.ioctls !== mask) {
    throw new CaseProblem(`The typed ioctl says ${said.ioctls}, its struct says ${mask}`);
  }
}
