// `minorfault guest …`: one guest of a page server.

import { resolve } from "node:path";
import { type Command, InvalidArgumentError } from "@commander-js/extra-typings";
import { hex } from "../base/errors.ts";
import type { Client, GuestDetails } from "../client/index.ts";
import { bytesText, msText, parseMs } from "./bytes.ts";
import { fromHere } from "./server/image-options.ts";
import { runVerb, WHERE_HELP, withManner } from "./server/verb.ts";

export function registerGuest(program: Command): void {
  const guest = program
    .command("guest")
    .description("announces, shows, drains and drops guests of a page server")
    .addHelpText("after", WHERE_HELP) as unknown as Command;
  registerExpect(guest);
  registerShow(guest);
  registerDrain(guest);
  registerDrop(guest);
}

function registerExpect(guest: Command): void {
  const command = guest
    .command("expect")
    .description("announces a guest, and prints the socket that it has to connect to")
    .argument("<image>", "name of an image that is served, or its URL");
  withManner(command)
    .option("--name <name>", "what it is to be called")
    .option("--uid <uid>", "only this user; the socket is given to it", parseId)
    .option("--gid <gid>", "the group that the socket is given to", parseId)
    .option("--pid <pid>", "only this process", parseId)
    .option("--path <path>", "where the socket is to be, such as in the guest's jail")
    .option("--working-set <name>", "the working set to replay")
    .option("--no-replay", "replay no working set")
    .option("--within <time>", "until when it must have come, 60s by default", parseMs)
    .addHelpText(
      "after",
      `
Examples:
  $ minorfault guest expect web --name vm-7
  $ minorfault guest expect web --uid 123 --gid 100 --path /srv/jailer/firecracker/vm-7/root/uffd.sock`,
    )
    .action((image, options) =>
      runVerb("guest expect", options, async (client, signal) => {
        const { name, uid, gid, pid, workingSet, replay, within } = options;
        const path = options.path === undefined ? undefined : resolve(options.path);
        const where = image.includes("/") ? fromHere(image) : image;
        const input = { image: where, name, uid, gid, pid, path, withinMs: within };
        const json = await client.expectGuest(
          { ...input, replay: replay === false ? false : workingSet },
          { signal },
        );
        return { json, text: json.socket };
      }),
    );
}

function registerShow(guest: Command): void {
  const command = guest
    .command("show")
    .description("shows one guest: its memory, its faults, its regions")
    .argument("<id>", "its id, or its name");
  withManner(command)
    .addHelpText(
      "after",
      "\nExamples:\n  $ minorfault guest show vm-7\n  $ minorfault guest show vm-7 --json",
    )
    .action((id, options) =>
      runVerb("guest show", options, async (client, signal) => {
        const json = await client.getGuest({ id: await idOf(client, id, signal) }, { signal });
        return { json, text: textOf(json) };
      }),
    );
}

function registerDrain(guest: Command): void {
  const command = guest
    .command("drain")
    .description("gives a guest all of its memory, then lets it go: it needs no server any more")
    .argument("<id>", "its id, or its name");
  withManner(command)
    .option("--no-wait", "do not wait until it is done")
    .addHelpText(
      "after",
      "\nExamples:\n  $ minorfault guest drain vm-7\n  $ minorfault guest drain vm-7 --no-wait",
    )
    .action((id, options) =>
      runVerb(
        "guest drain",
        options,
        async (client, signal) => {
          const known = await idOf(client, id, signal);
          const began = performance.now();
          const json = await client.drainGuest({ id: known, wait: options.wait }, { signal });
          const took = msText(performance.now() - began);
          return {
            json,
            text: json.done ? `${known} has all of its memory, after ${took}` : `${known} is draining`,
          };
        },
        "the guest is served on",
      ),
    );
}

function registerDrop(guest: Command): void {
  const command = guest
    .command("drop")
    .description("ends a guest (SIGKILL): without its pages it cannot live; or forgets one that is expected")
    .argument("<id>", "its id, or its name");
  withManner(command)
    .option("--reason <text>", "what the log is to say")
    .addHelpText("after", '\nExamples:\n  $ minorfault guest drop vm-7 --reason "host is drained"')
    .action((id, options) =>
      runVerb("guest drop", options, async (client, signal) => {
        const known = await idOf(client, id, signal);
        const json = await client.dropGuest({ id: known, reason: options.reason }, { signal });
        return {
          json,
          text: json.was === "expected" ? `${known} is not expected any more` : `${known} was ended`,
        };
      }),
    );
}

/** The id of a guest by its id or, if only one is called so, by its name. */
export async function idOf(client: Client, given: string, signal: AbortSignal): Promise<string> {
  const { guests, expected } = await client.listGuests({}, { signal });
  const all = [...guests, ...expected];
  if (all.some(({ id }) => id === given)) return given;
  const named = all.filter(({ name }) => name === given);
  // Whatever it is then, the server says that it knows no such guest.
  return named.length === 1 ? named[0]!.id : given;
}

function textOf(guest: GuestDetails): string {
  const { id, name, image, state, pid, uid, gid, since, handOverMs, pagers, statistics, regions } = guest;
  const { faults, outcomes, away, bytesInstalled, bytesZeroed, bytesReplayed, latencyUs, events, retries } =
    statistics;
  const ended = Object.entries(outcomes).filter(([, count]) => count > 0);
  const row = (label: string, text: string) => `  ${label.padEnd(12)} ${text}`;
  return [
    `${name ?? id}: ${state}, ${bytesText(guest.residentBytes)} of ${bytesText(guest.byteLength)} resident`,
    row("id", id),
    row("image", image),
    row("process", `${pid} (uid ${uid}, gid ${gid})`),
    row("since", `${since}, handed over in ${handOverMs.toFixed(1)} ms`),
    row("pagers", pagers === 1 ? "1" : `${pagers}: it has outlived ${pagers - 1}`),
    row(
      "faults",
      `${faults}${ended.length === 0 ? "" : `: ${ended.map(([how, count]) => `${count} ${how}`).join(", ")}`}`,
    ),
    row(
      "latency",
      `p50 ${latencyUs.p50.toFixed(1)} us, p99 ${latencyUs.p99.toFixed(1)} us, max ${latencyUs.max.toFixed(1)} us`,
    ),
    row(
      "installed",
      `${bytesText(bytesInstalled)}, ${bytesText(bytesZeroed)} of zeros, ${bytesText(bytesReplayed)} replayed`,
    ),
    row(
      "bytes",
      `${Math.max(0, faults - away.read - away.fetched - away.joined)} at hand, ${away.read} read, ${away.fetched} fetched, ${away.joined} on their way`,
    ),
    row("events", `${events}, ${retries} retries`),
    ...regions.map(({ start, byteLength, imageOffset, pageSize }) =>
      row(
        "region",
        `${bytesText(byteLength)} at ${hex(start)}, image from ${imageOffset}, pages of ${bytesText(pageSize)}`,
      ),
    ),
  ].join("\n");
}

function parseId(text: string): number {
  const id = Number(text);
  if (/^\d+$/.test(text) && id < 2 ** 32 - 1) return id;
  throw new InvalidArgumentError("An id is a number.");
}
