// The operations of the control API, over the table of guests.

import { MinorfaultError } from "../../base/errors.ts";
import type { GuestStatus, GuestTable, Ticket } from "../guests.ts";
import type { Recorder } from "./recorder.ts";
import type { InputOf, Operations } from "./routes.ts";
import { expectedJson, guestDetailsJson, guestJson, healthJson, imageJson } from "./status.ts";

export interface OperationsOptions {
  readonly table: GuestTable;
  readonly recorder: Recorder;
  readonly version: string;
  /** Told when work that nobody waits for has failed. */
  readonly onLateError: (what: string, error: unknown) => void;
}

export function operationsOf({ table, recorder, version, onLateError }: OperationsOptions): Operations {
  const there = (id: string): GuestStatus => {
    const status = table.get(id);
    if (status === undefined) throw noGuest(id);
    return status;
  };
  return {
    health: () => healthJson(table, version),
    listGuests: ({ image, state }) => ({
      guests: table
        .list()
        .filter((guest) => image === undefined || guest.image === image)
        .filter((guest) => state === undefined || guest.state === state)
        .map(guestJson),
      expected: table
        .expected()
        .filter((guest) => image === undefined || guest.image === image)
        .map(expectedJson),
    }),
    expectGuest: async (input) => expectedJson(await table.expect(ticketOf(input))),
    getGuest: ({ id }) => guestDetailsJson(there(id)),
    guestHistory: ({ id }) => {
      const history = recorder.history(id);
      if (history === undefined) throw noGuest(id);
      return history.toJSON();
    },
    drainGuest: async ({ id, wait = true }, { signal }) => {
      there(id);
      if (wait) {
        await table.drain(id, { signal });
        return { id, done: true };
      }
      table.drain(id).catch((error: unknown) => onLateError(`Draining guest ${id}`, error));
      return { id, done: false };
    },
    dropGuest: async ({ id, reason = "dropped by the operator" }) => {
      if (table.expected().some((guest) => guest.id === id)) {
        await table.forget(id);
        return { id, was: "expected" as const };
      }
      there(id);
      await table.drop(id, reason);
      return { id, was: "serving" as const };
    },
    listImages: () => ({ images: table.images().map(imageJson) }),
    addImage: async ({ name, warm, ...source }) =>
      imageJson(
        await table.addImage({ name, source: defined(source), ...(warm === undefined ? {} : { warm }) }),
      ),
    removeImage: async ({ name }) => {
      await table.removeImage(name);
      return {};
    },
    warmImage: async ({ name }) => imageJson(await table.warm(name)),
    getLimits: () => ({ ...table.limits }),
    setLimits: (some) => ({ ...table.setLimits(defined(some)) }),
    setPolicy: ({ rules }) => {
      table.setPolicy({ rules });
      return {};
    },
    shutdown: ({ withinMs }, { afterwards }) => {
      // Nobody is left to answer when it has ended.
      afterwards(() => {
        table
          .shutdown(withinMs === undefined ? {} : { withinMs })
          .catch((error: unknown) => onLateError("Ending the server", error));
      });
      return {};
    },
  };
}

function ticketOf(input: InputOf<"expectGuest">): Ticket {
  return defined(input);
}

/** Without the fields that were left out: an absent one and an undefined one are not the same. */
type Defined<T> = { [Key in keyof T]: Exclude<T[Key], undefined> };
function defined<T extends object>(input: T): Defined<T> {
  return Object.fromEntries(Object.entries(input).filter(([, value]) => value !== undefined)) as Defined<T>;
}

function noGuest(id: string): MinorfaultError {
  return new MinorfaultError("ERR_NO_SUCH", `There is no guest ${id}`);
}
