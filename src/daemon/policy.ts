// Who may use which image: rules about a peer's uid and gid, as the kernel tells them (SO_PEERCRED), never as the
// peer does. The first rule that fits peer and image lets it in; what no rule fits is refused.
//
//   { "rules": [ { "uid": 123, "images": ["/srv/images/*"], "guestsMax": 20 },
//                { "gid": 30000, "images": ["/srv/tenants/a/**", "https://images.example/a/*"] } ] }
//
// "*" stands for anything within a name, "**" for anything at all. Images are compared in one spelling
// (canonicalImage), so that no "..", no file: and no port that goes without saying slips past a pattern.

import { readFile, stat } from "node:fs/promises";
import { resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { z } from "zod";
import { MinorfaultError } from "../base/errors.ts";
import { schemeOf } from "../source/scheme.ts";
import { IMAGE_URL_MAX } from "./limits.ts";

/** LIMIT: bytes of a policy file. */
const POLICY_BYTES_MAX = 2 ** 20;
/** LIMIT: rules, patterns of a rule, and stars of a pattern: matching stays cheap whatever the file says. */
const RULES_MAX = 1000;
const PATTERNS_MAX = 100;
const STARS_MAX = 6;

const ID_MAX = 2 ** 32 - 2;
const ANYBODY = "*";

const pattern = z
  .string()
  .min(1)
  .max(IMAGE_URL_MAX)
  .refine((text) => text === "**" || /^(\/|file:\/\/\/|https?:\/\/|s3:\/\/)/.test(text), {
    error: "A pattern is **, an absolute path, or the beginning of an http:, https: or s3: URL",
  })
  .refine((text) => (text.match(/\*+/g) ?? []).length <= STARS_MAX, {
    error: `A pattern has at most ${STARS_MAX} stars`,
  });

const id = z.union([z.int().min(0).max(ID_MAX), z.literal(ANYBODY)]);

const rule = z
  .strictObject({
    /** User that the peer must run as; "*" for any. */
    uid: id.optional(),
    /** Group that the peer must run as (its effective one, not the supplementary ones). */
    gid: id.optional(),
    images: z.array(pattern).min(1).max(PATTERNS_MAX),
    /** Guests that one uid may have at a time by this rule. Default: as many as the server takes. */
    guestsMax: z.int().min(0).max(1_000_000).optional(),
  })
  .refine(({ uid, gid }) => uid !== undefined || gid !== undefined, {
    error: 'A rule names a uid, a gid or both; "uid": "*" is everybody',
  });

export const policyFile = z.strictObject({ rules: z.array(rule).max(RULES_MAX) }).meta({
  id: "Policy",
  description: "The first rule that fits lets a peer have an image; no rule, no image",
});

export type PolicyFile = z.infer<typeof policyFile>;
type Rule = PolicyFile["rules"][number];

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

/** Reads and checks a policy file. Whoever may write to it may use every image, so others must not. */
export async function readPolicy(path: string): Promise<Policy> {
  return policyOf(await readPolicyFile(path));
}

/** The same, as the plain data that a server keeps. */
export async function readPolicyFile(path: string): Promise<PolicyFile> {
  const found = await stat(path).catch((cause: unknown) => {
    throw new MinorfaultError("ERR_BAD_ARGUMENT", `The policy file ${path} cannot be read`, { cause });
  });
  if ((found.mode & 0o022) !== 0) {
    const mode = (found.mode & 0o777).toString(8);
    throw new MinorfaultError("ERR_BAD_ARGUMENT", `The policy file ${path} has mode ${mode}`, {
      hint: "Its group and others must not be able to write to it: chmod go-w",
    });
  }
  if (found.size > POLICY_BYTES_MAX) {
    throw new MinorfaultError("ERR_LIMIT", `The policy file ${path} has more than ${POLICY_BYTES_MAX} bytes`);
  }
  return parsePolicyFile(await readFile(path, "utf8"), path);
}

/** The policy that a JSON text describes; `where` names it in errors. */
export function parsePolicy(text: string, where = "the policy"): Policy {
  return policyOf(parsePolicyFile(text, where));
}

function parsePolicyFile(text: string, where: string): PolicyFile {
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch (cause) {
    throw new MinorfaultError("ERR_BAD_ARGUMENT", `${where} is not JSON`, { cause });
  }
  const parsed = policyFile.safeParse(json);
  if (!parsed.success) {
    const [issue] = parsed.error.issues;
    const at = issue?.path.length ? ` at ${issue.path.join(".")}` : "";
    throw new MinorfaultError("ERR_BAD_ARGUMENT", `${where}${at}: ${issue?.message ?? "is no policy"}`);
  }
  return parsed.data;
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

function isOf(rule: Rule, peer: PeerIdentity): boolean {
  const fits = (wanted: number | typeof ANYBODY | undefined, is: number): boolean =>
    wanted === undefined || wanted === ANYBODY || wanted === is;
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
