// Who may use which image: rules about a peer's uid and gid, as the kernel tells them (SO_PEERCRED), never as the
// peer does. The first rule that fits peer and image lets it in; what no rule fits is refused.
//
//   { "rules": [ { "uid": 123, "images": ["/srv/images/*"], "guestsMax": 20 },
//                { "gid": 30000, "images": ["/srv/tenants/a/**", "https://images.example/a/*"] } ] }
//
// "*" stands for anything within a name, "**" for anything at all. Images are compared in one spelling
// (canonicalImage), so that no "..", no file: and no port that goes without saying slips past a pattern.

import { resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { MinorfaultError } from "../base/errors.ts";
import { schemeOf } from "../source/scheme.ts";
import { IMAGE_URL_MAX } from "./limits.ts";
// Its types and no more: whoever takes over from a dead process is not to load a validator first.
import type { PolicyFile, PolicyRule } from "./policy-file.ts";

/** Who stands at the other end of a socket, as the kernel says. */
export interface PeerIdentity {
  readonly uid: number;
  readonly gid: number;
}

export type Verdict =
  | { readonly allowed: true }
  /** One sentence for the peer and the log; it tells nothing of other rules. */
  | { readonly allowed: false; readonly reason: string };

export interface Policy {
  /** `guestsOfPeer`: guests that this uid has already. */
  check(peer: PeerIdentity, image: string, guestsOfPeer?: number): Verdict;
}

/** Without a file: who runs the server, and root, may use everything. */
export function ownPolicy(uid: number = process.getuid?.() ?? 0): Policy {
  const owners = [...new Set([uid, 0])];
  return policyOf({ rules: owners.map((owner) => ({ uid: owner, images: ["**"] })) });
}

/** What a configuration says, or nothing. */
export function policyOrOwn(file: PolicyFile | undefined): Policy {
  return file === undefined ? ownPolicy() : policyOf(file);
}

export function policyOf({ rules }: PolicyFile): Policy {
  const compiled = rules.map((each) => ({ rule: each, images: each.images.map(compile) }));
  return {
    check(peer, image, guestsOfPeer = 0) {
      let name: string;
      try {
        name = canonicalImage(image);
      } catch (error) {
        return { allowed: false, reason: error instanceof Error ? error.message : String(error) };
      }
      const fitting = compiled.filter(
        ({ rule, images }) => isOf(rule, peer) && images.some((one) => one.test(name)),
      );
      if (fitting.length === 0) {
        return { allowed: false, reason: `No rule of the policy lets uid ${peer.uid} use ${name}` };
      }
      if (fitting.some(({ rule }) => guestsOfPeer < (rule.guestsMax ?? Number.POSITIVE_INFINITY))) {
        return { allowed: true };
      }
      const most = Math.max(...fitting.map(({ rule }) => rule.guestsMax ?? 0));
      return { allowed: false, reason: `The policy lets uid ${peer.uid} have ${most} guests at a time` };
    },
  };
}

function isOf(rule: PolicyRule, peer: PeerIdentity): boolean {
  const fits = (wanted: number | "*" | undefined, is: number): boolean =>
    wanted === undefined || wanted === "*" || wanted === is;
  return fits(rule.uid, peer.uid) && fits(rule.gid, peer.gid);
}

function compile(text: string): RegExp {
  const path = text.startsWith("file:///") ? text.slice("file://".length) : text;
  const parts = path.split(/(\*+)/).map((part) => {
    if (part === "*") return "[^/]*";
    return /^\*+$/.test(part) ? ".*" : part.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");
  });
  return new RegExp(`^${parts.join("")}$`, "s");
}

/** The one spelling of an image's path or URL by which it is compared, and by which guests share a reader. */
export function canonicalImage(image: string): string {
  const bad = (why: string) => new MinorfaultError("ERR_STORE_URL", `The image's name ${why}`);
  if (image.length > IMAGE_URL_MAX) throw bad(`is longer than ${IMAGE_URL_MAX} characters`);
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
  if (image === "" || /[\x00-\x1f\x7f]/.test(image)) throw bad("is empty or has control characters");
  if (schemeOf(image) === undefined) return resolve(image);
  let url: URL;
  try {
    url = new URL(image);
  } catch {
    throw bad("is not a URL that can be understood");
  }
  if (url.username !== "" || url.password !== "") throw bad("carries credentials");
  if (url.search !== "" || url.hash !== "") throw bad("has a query or a fragment");
  if (url.protocol === "file:") {
    try {
      return resolve(fileURLToPath(url));
    } catch {
      throw bad("is not the URL of a local path");
    }
  }
  // Escaped slashes and dots may mean anything to whoever unescapes them.
  if (/%(2e|2f|5c|00)/i.test(url.pathname)) throw bad("hides dots or slashes behind escapes");
  return url.href;
}
