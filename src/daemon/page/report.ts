// The report of one restore: what the live page shows of a guest, as one HTML file without a program and without anything
// from elsewhere. It can be opened from a disk, mailed, and read when nothing of the server is left.

import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import type { History } from "../control/history-schema.ts";
import { factsOf, figuresOf, happeningsOf } from "./figures.ts";
import { escaped } from "./words.ts";

export function reportHtml(history: History, madeWith: string): string {
  const style = readFileSync(new URL("../../../../src/daemon/page/page.css", import.meta.url), "utf8");
  const hash = createHash("sha256").update(style).digest("base64");
  const name = escaped(history.name ?? history.id);
  const ended = history.ended === undefined ? "is being served" : history.ended.reason;
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'sha256-${hash}'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>Restore of ${name}</title>
<style>${style}</style>
</head>
<body class="report">
<header class="top"><h1>Restore of ${name}</h1>
<p class="processes">${escaped(history.since)}, ${escaped(ended)}; minorfault ${escaped(madeWith)}</p></header>
<main>
<h2>In numbers</h2>
<dl class="facts">${factsOf(history)}</dl>
<h2>As it went</h2>
<div class="figures">
${figuresOf(history)}
<section class="figure" aria-label="What happened"><h3>What happened</h3>
<ul class="happenings">${happeningsOf(history)}</ul></section>
</div>
</main>
</body>
</html>
`;
}
