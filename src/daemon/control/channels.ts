// What happens, on `diagnostics_channel`: for whoever loads a module of his own into the server (NODE_OPTIONS=--import).
// Without subscribers a channel costs nothing.
//
//   minorfault:guest:connected   minorfault:guest:serving   minorfault:guest:refused   minorfault:guest:error
//   minorfault:guest:ended       minorfault:server:takeover  minorfault:server:keeper   minorfault:server:spare

import { channel } from "node:diagnostics_channel";
import type { GuestEventName, GuestTable } from "../guests.ts";

export const CHANNELS = {
  connected: "minorfault:guest:connected",
  serving: "minorfault:guest:serving",
  refused: "minorfault:guest:refused",
  error: "minorfault:guest:error",
  ended: "minorfault:guest:ended",
  takeover: "minorfault:server:takeover",
  keeper: "minorfault:server:keeper",
  spare: "minorfault:server:spare",
} as const satisfies Record<GuestEventName, string>;

/** Publishes the table's events as they are. Answers how to stop. */
export function publishEvents(table: GuestTable): () => void {
  const stops = (Object.keys(CHANNELS) as GuestEventName[]).map((name) => {
    const published = channel(CHANNELS[name]);
    const listener = (event: unknown) => published.publish(event);
    table.on(name, listener);
    return () => table.off(name, listener);
  });
  return () => {
    for (const stop of stops) stop();
  };
}
