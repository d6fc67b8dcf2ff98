// `via=NAME`: through which descriptor a step goes; `u` when it says nothing.

import type { Arguments } from "../arguments.ts";
import type { Value } from "../values.ts";

export function descriptorOption(
  words: Arguments,
): Value<{ readonly fd: number; readonly blocking: boolean }> {
  const word = words.option("via");
  if (word !== undefined && !words.scope.descriptors.has(word.text)) {
    const known = [...words.scope.descriptors].join(", ");
    words.fail(word, `a descriptor that the case has opened (${known})`);
  }
  const name = word?.text ?? "u";
  return (actor) => actor.descriptor(name);
}
