// The named limits of an image, and the numbers of its format. docs/image-format.md tells the whole.

export const FORMAT_NAME = "minorfault-image";
/** Readers refuse a greater one; what they may ignore is said by `requires` in the manifest. */
export const FORMAT_VERSION = 1;

/** The smallest page; everything in an image is a multiple of it. */
export const PAGE_BYTES = 4096;
export const HUGE_PAGE_BYTES = 2097152;
export const HASH_BYTES = 32;

/** LIMIT: sizes of a chunk, powers of two. Smaller ones deduplicate better, larger ones compress better. */
export const CHUNK_BYTES_MIN: number = PAGE_BYTES;
export const CHUNK_BYTES_MAX: number = HUGE_PAGE_BYTES;
export const CHUNK_BYTES_DEFAULT: number = 64 * 2 ** 10;

/** Chunks whose records lie in one index page: 64 MiB of memory with chunks of 64 KiB. */
export const PAGE_CHUNKS = 1024;

/** LIMIT: bytes of one image: page numbers of working sets have 32 bits. */
export const IMAGE_BYTES_MAX: number = 2 ** 44;
/** LIMIT: bytes of content after which a pack is finished; it is held in memory until then. */
export const PACK_BYTES: number = 32 * 2 ** 20;
/** LIMIT: bytes of one pack, and entries of one pack, that a reader accepts. */
export const PACK_BYTES_MAX: number = 2 ** 32 - 1;
export const PACK_ENTRIES_MAX: number = 2 ** 20;
/** LIMIT: packs that one image may refer to. */
export const PACKS_MAX: number = 2 ** 20;
/** LIMIT: bytes of a manifest. */
export const MANIFEST_BYTES_MAX: number = 4 * 2 ** 20;
/** LIMIT: bytes of the pack with the root index: a full image of 16 TiB in chunks of 64 KiB needs 13 MiB. */
export const ROOT_BYTES_MAX: number = 256 * 2 ** 20;

export const REGIONS_MAX = 4096;
export const ATTACHMENTS_MAX = 256;
/** LIMIT: bytes of one attachment: it is loaded as a whole, and is one frame of zstd. */
export const ATTACHMENT_BYTES_MAX: number = 64 * 2 ** 20;
export const NOTES_MAX = 256;
export const NOTE_CHARACTERS_MAX = 4096;
export const WORKING_SETS_MAX = 64;
/** LIMIT: pages of one working set: 4 GiB. */
export const WORKING_SET_PAGES_MAX: number = 2 ** 20;
/** LIMIT: bytes of one frame of a working set: what is hashed and compressed as one. */
export const FRAME_BYTES_MAX: number = 256 * 2 ** 10;
