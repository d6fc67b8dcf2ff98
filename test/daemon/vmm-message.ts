// What Firecracker sends beside the userfaultfd, spelled as each of its versions spells it (serde_json: no spaces, no
// newline, fields in the order of the struct).

import { PAGE_SIZE } from "../../src/abi/memory.ts";

/**
 * The first version of each spelling: 1.1 knows no page size; 1.7 calls it `page_size_kib` and means bytes; 1.12 has it
 * under both names.
 */
export type VmmVersion = "1.1" | "1.7" | "1.12";

export interface MessageRegion {
  /** Address in the VMM's process. */
  readonly address: number;
  readonly byteLength: number;
  readonly imageOffset: number;
  readonly pageSize?: number;
}

export function handOverMessage(regions: readonly MessageRegion[], version: VmmVersion = "1.12"): string {
  return JSON.stringify(
    regions.map(({ address, byteLength, imageOffset, pageSize = PAGE_SIZE }) => ({
      base_host_virt_addr: address,
      size: byteLength,
      offset: imageOffset,
      ...(version === "1.12" && { page_size: pageSize }),
      ...(version !== "1.1" && { page_size_kib: pageSize }),
    })),
  );
}
