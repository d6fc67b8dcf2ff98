// The scheme of a URL, by which it is told from a path.

/** A scheme has at least two letters, so that C:\models is a path. */
const SCHEME = /^([a-z][a-z0-9+.-]+):/i;

/** In small letters; undefined for a path. */
export function schemeOf(url: string): string | undefined {
  return SCHEME.exec(url)?.[1]?.toLowerCase();
}
