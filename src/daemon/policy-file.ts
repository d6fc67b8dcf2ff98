// A policy as a file, or as whoever calls the control API has it: read and checked here, obeyed in policy.ts.

import { readFile, stat } from "node:fs/promises";
import * as v from "valibot";
import { MinorfaultError } from "../base/errors.ts";
import { checked, integer, said, text } from "../base/schema.ts";
import { IMAGE_URL_MAX } from "./limits.ts";
import { type Policy, policyOf } from "./policy.ts";

/** LIMIT: bytes of a policy file. */
const POLICY_BYTES_MAX = 2 ** 20;
/** LIMIT: rules, patterns of a rule, and stars of a pattern: matching stays cheap whatever the file says. */
const RULES_MAX = 1000;
const PATTERNS_MAX = 100;
const STARS_MAX = 6;

const ID_MAX = 2 ** 32 - 2;
const ANYBODY = "*";

const pattern = v.pipe(
  text(1, IMAGE_URL_MAX),
  v.check(
    (given) => given === "**" || /^(\/|file:\/\/\/|https?:\/\/|s3:\/\/)/.test(given),
    "A pattern is **, an absolute path, or the beginning of an http:, https: or s3: URL",
  ),
  v.check(
    (given) => (given.match(/\*+/g) ?? []).length <= STARS_MAX,
    `A pattern has at most ${STARS_MAX} stars`,
  ),
);

const id = v.union([integer(0, ID_MAX), v.literal(ANYBODY)]);

const rule = v.pipe(
  v.strictObject({
    /** User that the peer must run as; "*" for any. */
    uid: v.optional(id),
    /** Group that the peer must run as (its effective one, not the supplementary ones). */
    gid: v.optional(id),
    images: v.pipe(v.array(pattern), v.minLength(1), v.maxLength(PATTERNS_MAX)),
    /** Guests that one uid may have at a time by this rule. Default: as many as the server takes. */
    guestsMax: v.optional(integer(0, 1_000_000)),
  }),
  v.check(
    ({ uid, gid }) => uid !== undefined || gid !== undefined,
    'A rule names a uid, a gid or both; "uid": "*" is everybody',
  ),
);

export const policyFile = said(
  v.strictObject({ rules: v.pipe(v.array(rule), v.maxLength(RULES_MAX)) }),
  "The first rule that fits lets a peer have an image; no rule, no image",
);

export type PolicyFile = v.InferOutput<typeof policyFile>;
export type PolicyRule = PolicyFile["rules"][number];

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
  return checked(
    policyFile,
    json,
    (flaw) => new MinorfaultError("ERR_BAD_ARGUMENT", `${where} is wrong at ${flaw}`),
  );
}
