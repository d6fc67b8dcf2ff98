// Numbers that change with the kernel's release although the behaviour does not: cases name them as $NAME.
//
// A new release is a new table, not new cases. 7.2 is what has been announced (mm/userfaultfd.c, man-pages
// 6.19): features RWP and RWP_ASYNC, register mode RWP, ioctls RWPROTECT and SET_MODE.

import { UFFD_API_FEATURES, UFFD_FEATURE } from "../../abi/userfaultfd.ts";

export const MASK_NAMES = [
  "$ALL_FEATURES",
  "$UNKNOWN_FEATURE",
  "$UNKNOWN_MODE",
  "$API_IOCTLS",
  "$CONTEXT_IOCTLS",
] as const;

export type MaskName = (typeof MASK_NAMES)[number];
export type Masks = Readonly<Record<MaskName, string>>;

export const MASKS: Readonly<Record<"linux-6.18" | "linux-7.2", Masks>> = {
  "linux-6.18": {
    $ALL_FEATURES: `0x${UFFD_API_FEATURES.toString(16)}`,
    /** The lowest bit that is no feature. */
    $UNKNOWN_FEATURE: "0x20000",
    /** The lowest bit that is no register mode. */
    $UNKNOWN_MODE: "0x8",
    /** What API answers in `ioctls`. */
    $API_IOCTLS: "0x8000000000000003",
    /** Third number of fdinfo's API line. */
    $CONTEXT_IOCTLS: "80000000000001ff",
  },
  "linux-7.2": {
    $ALL_FEATURES: "0x7ffff",
    $UNKNOWN_FEATURE: "0x80000",
    $UNKNOWN_MODE: "0x10",
    $API_IOCTLS: "0x8000000000000403",
    $CONTEXT_IOCTLS: "80000000000007ff",
  },
};

/** The table for a system that answers these features. */
export function masksFor(features: bigint): Masks {
  return MASKS[(features & UFFD_FEATURE.RWP) === 0n ? "linux-6.18" : "linux-7.2"];
}

export function isMaskName(name: string): name is MaskName {
  return (MASK_NAMES as readonly string[]).includes(name);
}

/** Replaces every $NAME in a text, longest names first so that none is a prefix of another. */
export function expandMasks(text: string, masks: Masks): string {
  return text.replace(/\$[A-Z0-9_]+/g, (name) => (isMaskName(name) ? masks[name] : name));
}
