// What an image of a QEMU machine holds besides RAM: the state of its devices, and what is known of the machine.
//
//   region <block>            a block of RAM each, in the order of the stream
//   attachment machine        JSON: this file's SavedMachine
//   attachment configuration  the stream's section, as it came
//   attachment device-state   all devices, as they came
//   attachment vmdescription  QEMU's own description of them, JSON
//   notes qemu.…              the same for people

import * as v from "valibot";
import { MinorfaultError } from "../../base/errors.ts";
import { checked, integer, text } from "../../base/schema.ts";
import type { Attachment, Image } from "../../image/index.ts";
import type { SourceBlock } from "./page-ledger.ts";
import { PAGE_BYTES } from "./stream-format.ts";

export const ATTACHMENT = {
  machine: "machine",
  configuration: "configuration",
  devices: "device-state",
  description: "vmdescription",
} as const;

const FORMAT = 1;

const pageSize = v.pipe(
  integer(PAGE_BYTES, 2 ** 40),
  v.check((bytes) => Number.isInteger(Math.log2(bytes)), "It is no power of two"),
);

const savedMachineSchema = v.looseObject({
  format: v.literal(FORMAT),
  /** The machine type with its version, as the stream names it: "pc-i440fx-7.2". */
  machine: v.optional(v.string()),
  /** The version of the QEMU that it was captured from, if we spoke with it. */
  qemu: v.optional(v.string()),
  /** Capabilities that the stream was made with, as far as it says. */
  capabilities: v.array(v.string()),
  uuid: v.optional(v.string()),
  /** The id of section ram in the stream. */
  sectionId: integer(0, 2 ** 32 - 1),
  blocks: v.array(
    v.looseObject({
      name: text(1, 255),
      byteLength: integer(PAGE_BYTES),
      /** Of the host that it was saved on, where that is known; else 4096. */
      pageSize,
      region: v.string(),
    }),
  ),
  devices: v.array(v.looseObject({ name: v.string(), instance: v.number(), version: v.number() })),
  /** What the guest did meanwhile; "file": nobody knows. */
  saved: v.picklist(["running", "stopped", "background-snapshot", "file"]),
});

export type SavedMachine = v.InferOutput<typeof savedMachineSchema>;

/** All that a restore sends before and beside RAM. */
export interface RestorableMachine {
  readonly machine: SavedMachine;
  readonly configuration: Uint8Array | undefined;
  readonly devices: Uint8Array;
}

export function savedMachine(fields: Omit<SavedMachine, "format">): SavedMachine {
  return { format: FORMAT, ...fields } as SavedMachine;
}

export function machineAttachment(machine: SavedMachine): Attachment {
  return { name: ATTACHMENT.machine, bytes: Buffer.from(`${JSON.stringify(machine, null, 2)}\n`) };
}

/** The same for people: short, and only what they would look for. */
export function machineNotes({ machine, qemu, capabilities, saved }: SavedMachine): Record<string, string> {
  return {
    ...(machine !== undefined && { "qemu.machine": machine }),
    ...(qemu !== undefined && { "qemu.version": qemu }),
    "qemu.capabilities": capabilities.join(" ") || "none",
    "qemu.saved": saved,
  };
}

/** Reads what an image says of its machine; checks that it fits the image. */
export async function readMachine(image: Image, signal?: AbortSignal): Promise<RestorableMachine> {
  const names = new Set(image.manifest.attachments.map(({ name }) => name));
  if (!names.has(ATTACHMENT.machine) || !names.has(ATTACHMENT.devices)) {
    throw new MinorfaultError("ERR_BAD_ARGUMENT", `${image.name} is not an image of a QEMU machine`, {
      hint: "`minorfault qemu capture` and `minorfault image import --from qemu-stream` make such images",
    });
  }
  const hasConfiguration = names.has(ATTACHMENT.configuration);
  // All at once: a store that is far away is waited for only once.
  const [machine, configuration, devices] = await Promise.all([
    image.readAttachment(ATTACHMENT.machine, signal),
    hasConfiguration ? image.readAttachment(ATTACHMENT.configuration, signal) : undefined,
    image.readAttachment(ATTACHMENT.devices, signal),
  ]);
  return { machine: parseMachine(image, machine), configuration, devices };
}

/** The machine's blocks as a restore numbers their pages. `pageSizes`: of the destination, by block, where they differ. */
export function sourceBlocks(
  image: Image,
  { blocks }: SavedMachine,
  pageSizes: ReadonlyMap<string, number> = new Map(),
): SourceBlock[] {
  return blocks.map(({ name, byteLength, pageSize, region }) => {
    const { offset } = image.regions.find((each) => each.name === region)!;
    return {
      name,
      byteLength,
      pageSize: pageSizes.get(name) ?? pageSize,
      firstPage: offset / PAGE_BYTES,
    };
  });
}

function parseMachine(image: Image, bytes: Uint8Array): SavedMachine {
  const wrong = (reason: string, cause?: unknown) =>
    new MinorfaultError("ERR_BAD_IMAGE", `The machine of ${image.name} is wrong: ${reason}`, { cause });
  let fields: unknown;
  try {
    fields = JSON.parse(Buffer.from(bytes).toString("utf8"));
  } catch (cause) {
    throw wrong("it is not JSON", cause);
  }
  const machine = checked(savedMachineSchema, fields, wrong);
  for (const { name, byteLength, region } of machine.blocks) {
    const found = image.regions.find((each) => each.name === region);
    if (found?.byteLength === byteLength) continue;
    throw wrong(
      `block ${name} has ${byteLength} bytes, its region ${region} has ${found?.byteLength ?? "none"}`,
    );
  }
  return machine;
}
