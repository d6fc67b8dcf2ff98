// Gathers what a saved stream says besides its pages, and makes of it what an image keeps.

import { MinorfaultError } from "../../base/errors.ts";
import type { Attachment, BuildEnding } from "../../image/index.ts";
import { regionNameOf } from "./block-names.ts";
import {
  ATTACHMENT,
  machineAttachment,
  machineNotes,
  type SavedMachine,
  savedMachine,
} from "./saved-machine.ts";
import type { StreamEvent } from "./stream-event.ts";
import { type CommandName, type Configuration, PAGE_BYTES, type RamBlock } from "./stream-format.ts";

/** Commands that a saved stream may have; they ask for nothing that an image would lack. */
const HARMLESS: ReadonlySet<CommandName> = new Set([
  "open-return-path",
  "ping",
  // Sent whenever the capability is on; what would follow it is refused.
  "postcopy-advise",
  "switchover-start",
]);

/** What the stream does not say, where somebody knows it. */
export interface MachineFacts {
  readonly saved: SavedMachine["saved"];
  /** QEMU's version. */
  readonly qemu?: string;
  /** Page sizes of the host, by block; those of the stream come first. */
  readonly pageSizes?: ReadonlyMap<string, number>;
}

export class StreamParts {
  readonly #facts: MachineFacts;
  #configuration: Configuration | undefined;
  #sectionId = 0;
  #blocks: readonly RamBlock[] | undefined;
  #devices: (StreamEvent & { readonly kind: "devices" }) | undefined;
  #description: Uint8Array | undefined;
  #isEnded = false;

  constructor(facts: MachineFacts) {
    this.#facts = facts;
  }

  /** The blocks of RAM, once they have been listed. */
  get blocks(): readonly RamBlock[] | undefined {
    return this.#blocks;
  }

  /** Pages of the host that a block lies in. */
  pageSizeOf({ name, pageSize }: RamBlock): number {
    return pageSize ?? this.#facts.pageSizes?.get(name) ?? PAGE_BYTES;
  }

  add(event: StreamEvent): void {
    switch (event.kind) {
      case "configuration":
        this.#configuration = event.configuration;
        break;
      case "section":
        this.#sectionId = event.section.id;
        break;
      case "blocks":
        this.#blocks = event.blocks;
        break;
      case "command":
        if (HARMLESS.has(event.command.name)) break;
        throw new MinorfaultError(
          "ERR_STREAM_FEATURE",
          `The stream of QEMU has command ${event.command.name} at offset ${event.offset}, which no saved machine has`,
          { hint: "Save the machine with plain `migrate`, not with post-copy or COLO" },
        );
      case "devices":
        this.#devices = event;
        break;
      case "description":
        this.#description = event.bytes;
        break;
      case "end":
        this.#isEnded = true;
        break;
    }
  }

  /** What goes with the image, when the stream has been read to its end. */
  extras(): Required<Omit<BuildEnding, "revised">> {
    const machine = this.#machine();
    const attachments: Attachment[] = [machineAttachment(machine)];
    const add = (name: string, bytes: Uint8Array | undefined) => {
      if (bytes !== undefined) attachments.push({ name, bytes });
    };
    add(ATTACHMENT.configuration, this.#configuration?.bytes);
    add(ATTACHMENT.devices, this.#devices?.bytes);
    add(ATTACHMENT.description, this.#description);
    return { attachments, notes: machineNotes(machine) };
  }

  #machine(): SavedMachine {
    const blocks = this.#blocks;
    const devices = this.#devices;
    if (blocks === undefined || devices === undefined || !this.#isEnded) {
      const missing = blocks === undefined ? "RAM" : devices === undefined ? "devices" : "end";
      throw new MinorfaultError("ERR_BAD_MESSAGE", `The stream of QEMU has no ${missing}`);
    }
    const { machine, capabilities = [], uuid } = this.#configuration ?? {};
    const { saved, qemu } = this.#facts;
    return savedMachine({
      ...(machine !== undefined && { machine }),
      ...(qemu !== undefined && { qemu }),
      ...(uuid !== undefined && { uuid }),
      capabilities: [...capabilities],
      sectionId: this.#sectionId,
      blocks: blocks.map((block) => ({
        name: block.name,
        byteLength: block.byteLength,
        pageSize: this.pageSizeOf(block),
        region: regionNameOf(block.name),
      })),
      devices: devices.sections.map(({ name, instance, version }) => ({ name, instance, version })),
      saved,
    });
  }
}
