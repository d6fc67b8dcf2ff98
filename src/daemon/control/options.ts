// What the control API is told when the server starts.

import * as v from "valibot";
import { MinorfaultError } from "../../base/errors.ts";
import { checked, integer } from "../../base/schema.ts";
import { LOG_LEVELS } from "./log.ts";

const TOKEN = "A token is 20 to 200 letters, digits or the characters ._~+/=-";

const control = v.strictObject({
  /** Port of this machine's loopback, for those who have the token; 0 lets the system choose. Default: none. */
  port: v.optional(integer(0, 65_535)),
  /** Needed with `port`: at least 20 characters that a header can carry. */
  token: v.optional(v.pipe(v.string(TOKEN), v.regex(/^[A-Za-z0-9._~+/=-]{20,200}$/, TOKEN))),
  logLevel: v.optional(v.picklist(LOG_LEVELS)),
});

export type ControlOptions = v.InferOutput<typeof control>;

/** @throws ERR_BAD_ARGUMENT with what is wrong, and never with the token. */
export function parseControlOptions(given: unknown): ControlOptions {
  const options = checked(
    control,
    given ?? {},
    (flaw) => new MinorfaultError("ERR_BAD_ARGUMENT", `Control API: ${flaw}`),
  );
  if (options.port !== undefined && options.token === undefined) {
    throw new MinorfaultError("ERR_BAD_ARGUMENT", "Control API: a TCP port needs a token");
  }
  return options;
}
