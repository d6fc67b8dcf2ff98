// How the page, the report and `minorfault top` say numbers. Pure: browsers load this file too.

const ENTITIES: Readonly<Record<string, string>> = {
  "&": "&amp;",
  "<": "&lt;",
  ">": "&gt;",
  '"': "&quot;",
  "'": "&#39;",
};

/** Text as HTML: whatever a guest is called, it stays text. */
export function escaped(text: string | number): string {
  return String(text).replace(/[&<>"']/g, (character) => ENTITIES[character] ?? "");
}

/** "0 B", "64.0 KiB", "1.5 GiB". */
export function bytesText(bytes: number): string {
  let value = bytes;
  let unit = "B";
  for (const next of ["KiB", "MiB", "GiB", "TiB"]) {
    if (value < 1024) break;
    value /= 1024;
    unit = next;
  }
  return `${unit === "B" || value >= 100 ? Math.round(value) : value.toFixed(1)} ${unit}`;
}

/** "7.4 µs", "1.25 ms", "2.0 s"; "–" where nothing was measured. */
export function microsecondsText(us: number | undefined): string {
  if (us === undefined || us === 0) return "–";
  if (us < 1000) return `${us < 100 ? us.toFixed(1) : Math.round(us)} µs`;
  return us < 1e6 ? `${(us / 1000).toFixed(us < 1e5 ? 1 : 0)} ms` : `${(us / 1e6).toFixed(1)} s`;
}

/** How long something has lasted: "350 ms", "12 s", "3 min", "5 h", "2 d". */
export function durationText(ms: number): string {
  if (ms < 1000) return `${Math.round(ms)} ms`;
  const seconds = ms / 1000;
  if (seconds < 120) return `${seconds < 10 ? seconds.toFixed(1) : Math.round(seconds)} s`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`;
  return seconds < 172_800 ? `${Math.round(seconds / 3600)} h` : `${Math.round(seconds / 86_400)} d`;
}

/** 65536 as "65 536", with spaces that do not break. */
export function countText(count: number): string {
  return String(Math.round(count)).replace(/\B(?=(\d{3})+$)/g, "\u00a0");
}

/** "0 %", "0.4 %", "62 %", "100 %": 100 is only everything. */
export function percentText(part: number, whole: number): string {
  if (whole === 0) return "–";
  const share = (part / whole) * 100;
  if (share > 0 && share < 10) return `${Math.max(0.1, share).toFixed(1)} %`;
  return `${share < 100 ? Math.min(99, Math.round(share)) : 100} %`;
}
