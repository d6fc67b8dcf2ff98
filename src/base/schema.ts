// What every schema of this house shares: JSON from outside is checked by valibot, which a thread loads in 5 ms.

import * as v from "valibot";

/** A whole number from `min` to `max`. */
export const integer = (min: number, max: number = Number.MAX_SAFE_INTEGER) =>
  v.pipe(v.number(), v.integer(), v.minValue(min), v.maxValue(max));

/** A text of `min` to `max` characters. */
export const text = (min: number, max: number) => v.pipe(v.string(), v.minLength(min), v.maxLength(max));

export const matching = (pattern: RegExp, message?: string) => v.pipe(v.string(), v.regex(pattern, message));

/** A moment as `Date.toJSON` writes it. */
export const moment = v.pipe(v.string(), v.isoTimestamp(), v.endsWith("Z"));

/** What the description of the API says of it. */
export const said = <T extends v.GenericSchema>(schema: T, text: string) =>
  v.pipe(schema, v.description(text));

/** A value that a schema has passed; else what `failure` makes of the first thing that is wrong: "regions.0.name: …". */
export function checked<T extends v.GenericSchema>(
  schema: T,
  value: unknown,
  failure: (flaw: string) => Error,
): v.InferOutput<T> {
  // For valibot a list is an object without fields, and where all fields are optional that would do.
  if ("entries" in schema && Array.isArray(value)) throw failure("Expected an object, not a list");
  const result = v.safeParse(schema, value, { abortEarly: true });
  if (result.success) return result.output;
  const [issue] = result.issues;
  const at = v.getDotPath(issue);
  throw failure(at === null ? issue.message : `${at}: ${issue.message}`);
}
