// A URL as it may be printed: what could be a secret (user, password, query) is cut off.

export function plain(url: string): string {
  return url.replace(/^([a-z][a-z0-9+.-]*:\/\/)[^/]*@/i, "$1").replace(/[?#].*$/s, "");
}
