// LIMITs that both sides of the control API know.

/** Characters of an image's URL or path. */
export const IMAGE_URL_MAX = 2048;
