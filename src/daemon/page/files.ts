// The live page's files: read once, served as they are, nothing from anywhere else. They hold nothing secret; what they
// show they ask for with the token.
//
//   /                      page.html
//   /page/browser/*.js     the page's program, compiled with the project
//   /control/frame.js      what it has in common with the server

import { readdirSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import type { Extra } from "../control/server.ts";

/** Nothing but ourselves; no inline script, no inline style, no frame, no form. */
export const CONTENT_SECURITY_POLICY =
  "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; " +
  "base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const HEADERS = {
  "content-security-policy": CONTENT_SECURITY_POLICY,
  "cross-origin-opener-policy": "same-origin",
  "cross-origin-resource-policy": "same-origin",
  "referrer-policy": "no-referrer",
} as const;

const TYPES = { html: "text/html", css: "text/css", js: "text/javascript", svg: "image/svg+xml" } as const;

export function pageFiles(): Extra[] {
  const compiled = (path: string) => fileURLToPath(new URL(`../${path}`, import.meta.url));
  // What is not compiled lies beside its source, in the package as in a checkout.
  const written = (path: string) =>
    fileURLToPath(new URL(`../../../../src/daemon/page/${path}`, import.meta.url));
  const programs = readdirSync(compiled("page/browser")).filter((name) => name.endsWith(".js"));
  return [
    file("/", written("page.html"), "html"),
    file("/page/page.css", written("page.css"), "css"),
    file("/page/icon.svg", written("icon.svg"), "svg"),
    ...programs.map((name) => file(`/page/browser/${name}`, compiled(`page/browser/${name}`), "js")),
    ...SHARED.map((path) => file(`/${path}`, compiled(path), "js")),
  ];
}

/** Modules that the page's program imports from beside it. */
const SHARED = ["control/frame.js", "page/draw.js", "page/figures.js", "page/words.js"] as const;

function file(path: string, from: string, kind: keyof typeof TYPES): Extra {
  let text: string | undefined;
  return {
    path,
    isOpen: true,
    answer: (_, reply) => {
      text ??= readFileSync(from, "utf8");
      return reply.headers(HEADERS).type(`${TYPES[kind]}; charset=utf-8`).send(text);
    },
  };
}
