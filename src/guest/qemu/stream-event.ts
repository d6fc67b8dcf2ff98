// What the reader of a migration stream reports. Offsets are those of the first byte of what is reported.

import type { Command, Configuration, RamBlock } from "./stream-format.ts";

/** A live section: its beginning, a part of it, or its last part. */
export interface SectionHead {
  readonly form: "start" | "part" | "finish";
  readonly id: number;
  readonly name: string;
  readonly instance: number;
  readonly version: number;
}

/** A device's section, of which only name and bounds are understood. */
export interface DeviceSection {
  readonly id: number;
  readonly name: string;
  readonly instance: number;
  readonly version: number;
  /** In the device state. */
  readonly start: number;
  readonly until: number;
}

export type StreamEvent =
  | { readonly kind: "libvirt"; readonly offset: number; readonly xmlBytes: number }
  | { readonly kind: "header"; readonly offset: number }
  | { readonly kind: "configuration"; readonly offset: number; readonly configuration: Configuration }
  | { readonly kind: "section"; readonly offset: number; readonly section: SectionHead }
  | { readonly kind: "blocks"; readonly offset: number; readonly blocks: readonly RamBlock[] }
  /** Bits of pages that a file with mapped-ram has, in bytes: bit i % 8 of byte i / 8. */
  | {
      readonly kind: "mapped";
      readonly offset: number;
      readonly block: number;
      readonly bitmap: Uint8Array;
    }
  /** `bytes` are valid until the next event is read, and absent if the reader was told to leave them out. */
  | {
      readonly kind: "page";
      readonly offset: number;
      readonly block: number;
      readonly page: number;
      /** Of the page's first byte. */
      readonly at: number;
      readonly bytes: Uint8Array | undefined;
    }
  | { readonly kind: "zero"; readonly offset: number; readonly block: number; readonly page: number }
  /** The end of a section's part, after its footer. */
  | { readonly kind: "section end"; readonly offset: number; readonly section: SectionHead }
  | { readonly kind: "command"; readonly offset: number; readonly command: Command }
  /** All devices, from the first one's first byte up to, not including, the byte that ends the stream. */
  | {
      readonly kind: "devices";
      readonly offset: number;
      readonly bytes: Uint8Array;
      readonly sections: readonly DeviceSection[];
    }
  | { readonly kind: "end"; readonly offset: number }
  /** JSON. */
  | { readonly kind: "description"; readonly offset: number; readonly bytes: Uint8Array };
