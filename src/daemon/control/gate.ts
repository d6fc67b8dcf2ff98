// Who may speak with the control API.
//
// A unix socket has its file's mode (0600): who can connect is the owner or root. Loopback TCP has nothing of that
// kind, so there three things are asked for:
//   Host     is this machine's loopback: a page of another site can't reach us under a name of its own (DNS rebinding)
//   Origin   if a browser sends one, is our own: no other site's script or form gets through
//   token    a secret that only who may read its file knows, as `Authorization: Bearer …`: it is no cookie, so a
//            browser never sends it by itself
// What needs no token are the page's own files, which hold nothing, and the two probes of health.

import { createHash, timingSafeEqual } from "node:crypto";
import type { IncomingMessage } from "node:http";
import { MinorfaultError } from "../../base/errors.ts";

const LOOPBACK = /^(localhost|127\.0\.0\.1|\[::1\])(:\d{1,5})?$/i;

export type GateAnswer = { readonly status: 401 | 403; readonly error: MinorfaultError } | undefined;

/** Whether a request may pass: undefined, or what it is told. `isOpen`: it holds nothing secret. */
export function gate(request: IncomingMessage, token: string | undefined, isOpen: boolean): GateAnswer {
  const { host = "", origin, authorization } = request.headers;
  const site = request.headers["sec-fetch-site"];
  if (token === undefined) {
    // A unix socket. Browsers can't reach one; whoever says they come from a site is not who we know.
    return origin === undefined ? undefined : refusal(403, "A unix socket has no Origin");
  }
  if (!LOOPBACK.test(host)) return refusal(403, "Host is not this machine's loopback");
  if (origin !== undefined && origin.toLowerCase() !== `http://${host.toLowerCase()}`) {
    return refusal(403, "Origin is another site");
  }
  if (site !== undefined && site !== "same-origin" && site !== "none") {
    return refusal(403, "The request comes from another site");
  }
  if (isOpen) return undefined;
  const [, given] = /^Bearer ([A-Za-z0-9._~+/=-]{1,200})$/i.exec(authorization ?? "") ?? [];
  if (given === undefined) return refusal(401, "Over TCP a token is needed");
  return isSame(given, token) ? undefined : refusal(401, "The token is not the server's");
}

function refusal(status: 401 | 403, message: string): GateAnswer {
  return { status, error: new MinorfaultError("ERR_DENIED", message) };
}

/** In a time that says nothing of how much of it is right. */
function isSame(one: string, other: string): boolean {
  const digest = (text: string) => createHash("sha256").update(text).digest();
  return timingSafeEqual(digest(one), digest(other));
}
