// What JSON from outside must look like, said once: the check and the type come from the same words. Nothing but closures,
// because a thread that serves faults loads it while guests may be waiting for that thread.

/** What is wrong, and where in the value. */
export interface Flaw {
  readonly at: readonly (string | number)[];
  readonly why: string;
}

/** Finds the first flaw of a value; undefined: it has this form. Fields that no form names are left as they are. */
export type Form<T> = ((value: unknown) => Flaw | undefined) & { readonly of?: T };

/** The type of the values of a form. */
export type Formed<F> = F extends Form<infer T> ? Exclude<T, undefined> : never;

interface Optional<T> {
  readonly optional: Form<T>;
}

type Fields = Readonly<Record<string, Form<unknown> | Optional<unknown>>>;
type Required<F extends Fields> = {
  [K in keyof F as F[K] extends Optional<unknown> ? never : K]: Formed<F[K]>;
};
type Possible<F extends Fields> = {
  [K in keyof F as F[K] extends Optional<unknown> ? K : never]?: F[K] extends Optional<infer T>
    ? Exclude<T, undefined> | undefined
    : never;
};

/** A whole number within these bounds. */
export function integer(min: number, max: number = Number.MAX_SAFE_INTEGER): Form<number> {
  return (value) => {
    if (!Number.isSafeInteger(value)) return flaw("it is not a whole number");
    return (value as number) < min || (value as number) > max
      ? flaw(`it is not from ${min} to ${max}`)
      : undefined;
  };
}

export function text({ max = Number.POSITIVE_INFINITY } = {}): Form<string> {
  return (value) => {
    if (typeof value !== "string") return flaw("it is not a text");
    return value.length > max ? flaw(`it has more than ${max} characters`) : undefined;
  };
}

export function matching(pattern: RegExp): Form<string> {
  return (value) =>
    typeof value === "string" && pattern.test(value) ? undefined : flaw(`it does not match ${pattern}`);
}

/** A moment as JSON has it: `2026-11-23T12:00:00.000Z`, on a day that there is. */
export function moment(): Form<string> {
  const pattern = /^(\d{4}-\d\d-\d\d)T([01]\d|2[0-3]):[0-5]\d:[0-5]\d(\.\d+)?Z$/;
  return (value) => {
    const day = typeof value === "string" ? pattern.exec(value)?.[1] : undefined;
    const at = Date.parse(`${day}T00:00:00Z`);
    const isDay = !Number.isNaN(at) && new Date(at).toISOString().startsWith(`${day}T`);
    return isDay ? undefined : flaw("it is not a moment of ISO 8601 that ends with Z");
  };
}

export function oneOf<const V extends readonly (string | number)[]>(...values: V): Form<V[number]> {
  return (value) =>
    values.includes(value as V[number]) ? undefined : flaw(`it is none of ${values.join(", ")}`);
}

/** One that also passes a test of its own. */
export function which<T>(form: Form<T>, test: (value: T) => boolean, why: string): Form<T> {
  return (value) => form(value) ?? (test(value as T) ? undefined : flaw(why));
}

export function list<T>(form: Form<T>, { min = 0, max = Number.POSITIVE_INFINITY } = {}): Form<T[]> {
  return (value) => {
    if (!Array.isArray(value)) return flaw("it is not a list");
    if (value.length < min || value.length > max) return flaw(`it has ${value.length} of ${min} to ${max}`);
    return first(value.entries(), () => form);
  };
}

/** An object of any names that match, with values of one form. */
export function dictionary<T>(
  name: RegExp,
  form: Form<T>,
  { max = Number.POSITIVE_INFINITY } = {},
): Form<Record<string, T>> {
  return (value) => {
    if (!isObject(value)) return flaw("it is not an object");
    const entries = Object.entries(value);
    if (entries.length > max) return flaw(`it has more than ${max} fields`);
    return first(entries, (key) => (name.test(key) ? form : () => flaw("this is not a name")));
  };
}

/** An object with these fields; it may have others. */
export function record<const F extends Fields>(fields: F): Form<Required<F> & Possible<F>> {
  const forms = Object.entries(fields);
  return (value) => {
    if (!isObject(value)) return flaw("it is not an object");
    for (const [key, field] of forms) {
      const found = Object.hasOwn(value, key) ? value[key] : undefined;
      if (!("optional" in field)) {
        const wrong = within(key, field(found));
        if (wrong !== undefined) return wrong;
      } else if (found !== undefined) {
        const wrong = within(key, field.optional(found));
        if (wrong !== undefined) return wrong;
      }
    }
    return undefined;
  };
}

export function optional<T>(form: Form<T>): Optional<T> {
  return { optional: form };
}

function flaw(why: string): Flaw {
  return { at: [], why };
}

function within(key: string | number, wrong: Flaw | undefined): Flaw | undefined {
  return wrong && { at: [key, ...wrong.at], why: wrong.why };
}

function first<K extends string | number>(
  entries: Iterable<readonly [K, unknown]>,
  formOf: (key: K) => Form<unknown>,
): Flaw | undefined {
  for (const [key, value] of entries) {
    const wrong = within(key, formOf(key)(value));
    if (wrong !== undefined) return wrong;
  }
  return undefined;
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
