// What the control API is told when the server starts.

import { z } from "zod";
import { MinorfaultError } from "../../base/errors.ts";
import { LOG_LEVELS } from "./log.ts";

const control = z.strictObject({
  /** Port of this machine's loopback, for those who have the token; 0 lets the system choose. Default: none. */
  port: z.int().min(0).max(65_535).optional(),
  /** Needed with `port`: at least 20 characters that a header can carry. */
  token: z
    .string()
    .regex(/^[A-Za-z0-9._~+/=-]{20,200}$/, {
      error: "A token is 20 to 200 letters, digits or the characters ._~+/=-",
    })
    .optional(),
  logLevel: z.enum(LOG_LEVELS).optional(),
});

export type ControlOptions = z.infer<typeof control>;

/** @throws ERR_BAD_ARGUMENT with what is wrong, and never with the token. */
export function parseControlOptions(given: unknown): ControlOptions {
  const parsed = control.safeParse(given ?? {});
  if (!parsed.success) {
    const [issue] = parsed.error.issues;
    const at = issue?.path.length ? `${issue.path.join(".")}: ` : "";
    throw new MinorfaultError("ERR_BAD_ARGUMENT", `Control API: ${at}${issue?.message ?? "not understood"}`);
  }
  if (parsed.data.port !== undefined && parsed.data.token === undefined) {
    throw new MinorfaultError("ERR_BAD_ARGUMENT", "Control API: a TCP port needs a token");
  }
  return parsed.data;
}
