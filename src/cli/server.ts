// `minorfault server …`: a page server as a whole.

import { type Command, InvalidArgumentError } from "@commander-js/extra-typings";
import { byteSizeOf } from "../base/byte-size.ts";
import type { Health, Image } from "../client/index.ts";
import { bytesText, counted, msText, parseMs } from "./bytes.ts";
import { parseDigest } from "./image/verb.ts";
import { atDeadlineOption, fromHere } from "./server/image-options.ts";
import { columns, runVerb, WHERE_HELP, withManner } from "./server/verb.ts";

/** What a limit is counted in. */
const LIMITS = {
  guestsMax: Number,
  connectionsMax: Number,
  messageBytesMax: byteSizeOf,
  regionsMax: Number,
  guestBytesMax: byteSizeOf,
  handOverMs: parseMs,
} as const;

export function registerServer(program: Command): void {
  const server = program
    .command("server")
    .description("asks and changes a page server that runs")
    .addHelpText("after", WHERE_HELP) as unknown as Command;
  registerHealth(server);
  registerImages(server);
  registerLimits(server);
  registerPolicy(server);
  registerStop(server);
}

function registerHealth(server: Command): void {
  const command = server
    .command("health")
    .description("says whether the server is ready, and how it has fared");
  withManner(command)
    .addHelpText(
      "after",
      "\nExits with 1 when it is not ready.\n\nExamples:\n  $ minorfault server health --quiet && echo ready",
    )
    .action((options) =>
      runVerb("server health", options, async (client, signal) => {
        const json = await client.health({}, { signal });
        return { json, text: healthText(json), exitCode: json.ready ? 0 : 1 };
      }),
    );
}

function registerImages(server: Command): void {
  withManner(server.command("images").description("lists the images that guests can connect to"))
    .addHelpText("after", "\nExamples:\n  $ minorfault server images --json")
    .action((options) =>
      runVerb("server images", options, async (client, signal) => {
        const json = await client.listImages({}, { signal });
        return { json, text: imagesText(json.images) };
      }),
    );
  const warm = server
    .command("warm")
    .description("opens an image ahead of its guests, and waits until that is done")
    .argument("<image>", "its name");
  withManner(warm)
    .addHelpText("after", "\nExamples:\n  $ minorfault server warm web")
    .action((name, options) =>
      runVerb("server warm", options, async (client, signal) => {
        const json = await client.warmImage({ name: name }, { signal });
        return { json, text: imagesText([json]) };
      }),
    );
  const add = server
    .command("add")
    .description("serves one more image, at a socket of its own, which is printed")
    .argument("<name>", "what it is to be called")
    .argument("<image>", "folder/name, https://…/name, s3://bucket/name, or a raw file");
  withManner(add)
    .option("--digest <sha256>", "of the manifest that it must have", parseDigest)
    .option("--deadline <time>", "how long a fault may wait for its bytes", parseMs)
    .addOption(atDeadlineOption())
    .option("--cold", "do not open it before its first guest comes")
    .addHelpText(
      "after",
      "\nExamples:\n  $ minorfault server add web /srv/images/web\n  $ minorfault server add db s3://images/db --deadline 2s",
    )
    .action((name, url, options) =>
      runVerb("server add", options, async (client, signal) => {
        const { digest, deadline: deadlineMs, atDeadline, cold } = options;
        const warm = cold === undefined ? undefined : false;
        const input = { name, url: fromHere(url), digest, deadlineMs, atDeadline, warm };
        const json = await client.addImage(input, { signal });
        return { json, text: json.socket };
      }),
    );
  const remove = server
    .command("remove")
    .description("takes an image's socket away; guests that have the image are served on")
    .argument("<image>", "its name");
  withManner(remove)
    .addHelpText("after", "\nExamples:\n  $ minorfault server remove web")
    .action((name, options) =>
      runVerb("server remove", options, async (client, signal) => ({
        json: await client.removeImage({ name: name }, { signal }),
        text: `${name} is not served any more`,
      })),
    );
}

function registerLimits(server: Command): void {
  const command = server
    .command("limits")
    .description("shows what the server takes from outside, or changes it while it runs")
    .argument("[limits...]", "name=value");
  withManner(command)
    .addHelpText(
      "after",
      "\nExamples:\n  $ minorfault server limits\n  $ minorfault server limits guestsMax=200 guestBytesMax=64GiB handOverMs=2s",
    )
    .action((given, options) =>
      runVerb("server limits", options, async (client, signal) => {
        const wanted = limitsOf(given);
        const json =
          Object.keys(wanted).length === 0
            ? await client.getLimits({}, { signal })
            : await client.setLimits(wanted, { signal });
        return { json, text: columns(Object.entries(json).map(([name, value]) => [name, String(value)])) };
      }),
    );
}

function registerPolicy(server: Command): void {
  const command = server
    .command("policy")
    .description("changes who may use which image, while the server runs")
    .argument("<file>", "the new policy, JSON");
  withManner(command)
    .addHelpText("after", "\nExamples:\n  $ minorfault server policy /etc/minorfault/policy.json")
    .action((file, options) =>
      runVerb("server policy", options, async (client, signal) => {
        const { readPolicyFile } = await import("../daemon/policy-file.ts");
        const policy = await readPolicyFile(file);
        const json = await client.setPolicy(policy, { signal });
        return { json, text: `${policy.rules.length} rules hold from now on` };
      }),
    );
}

function registerStop(server: Command): void {
  withManner(
    server
      .command("stop")
      .description(
        "takes no more guests, gives those that are there all of their memory, and ends the server",
      ),
  )
    .option("--within <time>", "who does not have all by then is ended", parseMs)
    .addHelpText("after", "\nExamples:\n  $ minorfault server stop\n  $ minorfault server stop --within 30s")
    .action((options) =>
      runVerb("server stop", options, async (client, signal) => ({
        json: await client.shutdown({ withinMs: options.within }, { signal }),
        text: "the server is ending",
      })),
    );
}

function limitsOf(given: readonly string[]): Partial<Record<keyof typeof LIMITS, number>> {
  return Object.fromEntries(
    given.map((text) => {
      const [, name = "", value = ""] = /^(\w+)=(.+)$/.exec(text) ?? [];
      const parse = LIMITS[name as keyof typeof LIMITS];
      const number = parse?.(value);
      if (number === undefined || !Number.isFinite(number)) {
        const names = Object.keys(LIMITS).join(", ");
        throw new InvalidArgumentError(`A limit is name=value, with a name of ${names}: ${text}`);
      }
      return [name, number];
    }),
  );
}

function healthText(health: Health): string {
  const { ready, why, version, pid, keeperPid, sparePid, serverSince, guests, expected, images, counters } =
    health;
  const sum = (counts: Readonly<Record<string, number>>) =>
    Object.values(counts).reduce((total, count) => total + count, 0);
  const listed = (counts: Readonly<Record<string, number>>) =>
    sum(counts) === 0
      ? "none"
      : Object.entries(counts)
          .map(([name, count]) => `${count} ${name}`)
          .join(", ");
  return columns([
    ["state", ready ? "ready" : `not ready: ${why ?? "no reason given"}`],
    ["version", version],
    [
      "processes",
      `pager ${pid}, keeper ${keeperPid}, ${sparePid === undefined ? "no spare" : `spare ${sparePid}`}`,
    ],
    ["up for", msText(Date.now() - Date.parse(serverSince))],
    ["guests", `${guests}, ${expected} expected, ${counted(images, "image")}`],
    ["handed over", `${counters.handOvers} of ${counters.connections} connections`],
    ["refused", listed(counters.refused)],
    ["ended", listed(counters.ended)],
    ["takeovers", `${counted(counters.takeovers, "pager")}, ${counted(counters.keepers, "keeper")}`],
  ]);
}

function imagesText(images: readonly Image[]): string {
  const heads = ["NAME", "STATE", "SIZE", "GUESTS", "SOCKET", "SOURCE"];
  const rows = images.map(({ name, state, byteLength, guests, socket, url, error }) => [
    name,
    error === undefined ? state : `${state}: ${error}`,
    byteLength === undefined ? "-" : bytesText(byteLength),
    String(guests),
    socket,
    url,
  ]);
  return columns([heads, ...rows], [2, 3]);
}
