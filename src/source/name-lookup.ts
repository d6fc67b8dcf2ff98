// Host names to addresses, asked once.
//
// The system's resolver runs on libuv's threads, which may all be standing in faults when a connection has to be
// made again. So a name is resolved when its store is opened, outside the way of any fault, and what was found is
// used for as long as the store is open. A host that moves meanwhile is found by opening the store again.

import { lookup } from "node:dns/promises";
import { isIP, type LookupFunction } from "node:net";
import { MinorfaultError } from "../base/errors.ts";

export interface Address {
  readonly address: string;
  readonly family: number;
}

export async function addressesOf(hostname: string): Promise<readonly Address[]> {
  // As URLs write it, in brackets.
  const host = hostname.replace(/^\[(.*)\]$/, "$1");
  const family = isIP(host);
  if (family !== 0) return [{ address: host, family }];
  try {
    return await lookup(host, { all: true });
  } catch (cause) {
    throw new MinorfaultError("ERR_SOURCE_UNREACHABLE", `The host ${host} cannot be found`, {
      cause,
      retryable: cause instanceof Error && "code" in cause && cause.code === "EAI_AGAIN",
    });
  }
}

/** A `lookup` for sockets that answers with what is known already. */
export function knownLookup(addresses: readonly Address[]): LookupFunction {
  return (_hostname, options, callback) => {
    const wanted = addresses.filter(({ family }) => !options.family || family === options.family);
    const [first] = wanted;
    if (first === undefined) {
      callback(new Error("No address of the family that was asked for"), "", 0);
    } else if (options.all) {
      callback(null, [...wanted]);
    } else {
      callback(null, first.address, first.family);
    }
  };
}

/** A `lookup` for sockets that asks the system the first time and remembers. */
export function rememberingLookup(): LookupFunction {
  const known = new Map<string, Promise<readonly Address[]>>();
  return (hostname, options, callback) => {
    let found = known.get(hostname);
    if (found === undefined) {
      found = addressesOf(hostname);
      known.set(hostname, found);
      // A failure is not worth remembering.
      found.catch(() => known.delete(hostname));
    }
    found.then(
      (addresses) => knownLookup(addresses)(hostname, options, callback),
      (error: Error) => callback(error, "", 0),
    );
  };
}
