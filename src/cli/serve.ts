// `minorfault serve`: a page server for virtual machines and other guests. The server is processes of their own, which go on
// whatever happens to this one; this one shows what they do, and ends them when it is told to.

import { type Command, InvalidArgumentError } from "@commander-js/extra-typings";
import { MinorfaultError } from "../base/errors.ts";
import { activatedSockets } from "../daemon/activation.ts";
import type { ImageConfig, ServerConfig, ServerLimits } from "../daemon/config.ts";
import { parseControlOptions } from "../daemon/control/options.ts";
import { defaultFolder } from "../daemon/folder.ts";
import type { FrontEvent } from "../daemon/front-pipe.ts";
import { readPolicyFile } from "../daemon/policy-file.ts";
import { imagePath } from "../daemon/sockets.ts";
import { type RunningServer, startServer, takeOver } from "../daemon/start.ts";
import { counted, msText, parseMs } from "./bytes.ts";
import { endOnSignals } from "./ending.ts";
import { type AtDeadline, atDeadlineOption, fromHere } from "./server/image-options.ts";

interface ServeOptions {
  readonly folder: string;
  readonly policy?: string | undefined;
  readonly port?: number | undefined;
  readonly logLevel?: string | undefined;
  readonly guestsMax?: number | undefined;
  readonly handOver?: number | undefined;
  readonly deadline?: number | undefined;
  readonly atDeadline?: AtDeadline | undefined;
  readonly cold?: true | undefined;
  readonly takeover?: true | undefined;
  readonly json?: true | undefined;
  readonly quiet?: true | undefined;
}

const EXAMPLES = `
Each image has a socket, <folder>/images/<name>.sock: what goes into backend_path of Firecracker's PUT /snapshot/load,
or into open(…, { server }) of a Node program. Other guests are announced with \`minorfault guest expect\`.

The server survives the end of any of its processes: guests wait some milliseconds. It ends on SIGTERM or Ctrl-C, once
every guest has all of its memory; a guest that can't be given that is ended, and the reason is written to
<folder>/endings.jsonl. With LISTEN_FDS the sockets are systemd's: control, or the name of an image.

Over TCP (--port) the control API needs a token: 20 or more characters in MINORFAULT_TOKEN.

Exit code: 0 ended with every guest complete, or taken over; 1 a guest had to be ended; 2 usage, 3 environment.

Examples:
  $ minorfault serve base=/srv/images/base
  $ minorfault serve base=s3://bucket/images/base tools=/srv/tools.mem --policy /etc/minorfault/policy.json
  $ minorfault serve --takeover                  # after an update: the new program takes the old one's place
  $ curl --unix-socket /run/fc.sock -X PUT http://localhost/snapshot/load -d '{"snapshot_path": "vm.state",
      "mem_backend": {"backend_type": "Uffd", "backend_path": "/run/minorfault/images/base.sock"}, "resume_vm": true}'`;

export function registerServe(program: Command): void {
  program
    .command("serve")
    .description("serves page faults of virtual machines and other guests, from images")
    .argument("[images...]", "name=image: a folder/name, a raw file, https://… or s3://…", parseImage)
    .option("--folder <path>", "where its sockets are, mode 0700", defaultFolder())
    .option("--policy <file>", "who may use which image (JSON); default: who runs the server, and root")
    .option("--port <number>", "control API at this port of the loopback, too", parseNumber)
    .option("--log-level <level>", "of the log on stderr: silent, error, warn, info or debug")
    .option("--guests-max <number>", "guests at once; default 1024", parseNumber)
    .option("--hand-over <time>", "how long a hand-over may take; default 5s", parseMs)
    .option("--deadline <time>", "how long a fault may wait for its bytes; default 1s", parseMs)
    .addOption(atDeadlineOption())
    .option("--cold", "open an image at its first guest, not ahead")
    .option("--takeover", "take the place of the server in the folder, with all that it has")
    .option("--json", "print what happens as JSON, one object a line")
    .option("--quiet", "print only what goes wrong")
    .addHelpText("after", EXAMPLES)
    .action((images, options) => serve((images as readonly ImageConfig[] | undefined) ?? [], options));
}

async function serve(images: readonly ImageConfig[], options: ServeOptions): Promise<void> {
  const server = options.takeover ? begin(images, options) : await start(images, options);
  const ending = endOnSignals();
  ending.signal.addEventListener("abort", () => {
    say(options, `ending: giving every guest all of its memory (again to leave it to itself)`);
    server.stop();
  });
  try {
    await server.ready;
    if (!options.takeover) say(options, `serving in ${server.folder}`);
    for (const { name } of images) say(options, `${name} at ${imagePath(server.folder, name)}`);
    const { code, why } = await server.ended;
    say(options, `ended: ${why}`);
    process.exitCode = code;
  } finally {
    ending.close();
  }
}

function begin(images: readonly ImageConfig[], options: ServeOptions): RunningServer {
  if (images.length > 0) {
    throw new MinorfaultError(
      "ERR_BAD_ARGUMENT",
      "A server that takes over has the images of the one before",
      {
        hint: "Take over first, then add images through the control API",
      },
    );
  }
  return takeOver(options.folder, { onEvent: (event) => show(event, options) });
}

async function start(images: readonly ImageConfig[], options: ServeOptions): Promise<RunningServer> {
  const {
    folder,
    policy,
    port,
    logLevel,
    guestsMax,
    handOver,
    deadline: deadlineMs,
    atDeadline,
    cold,
  } = options;
  const fetch = {
    ...(deadlineMs === undefined ? {} : { deadlineMs }),
    ...(atDeadline === undefined ? {} : { atDeadline }),
  };
  const limits: Partial<ServerLimits> = {
    ...(guestsMax === undefined ? {} : { guestsMax }),
    ...(handOver === undefined ? {} : { handOverMs: handOver }),
  };
  const token = process.env.MINORFAULT_TOKEN;
  const control = parseControlOptions({
    ...(port === undefined ? {} : { port, token }),
    logLevel: logLevel ?? (options.json || options.quiet ? "error" : "warn"),
  });
  const config: ServerConfig = {
    folder,
    images: images.map((image) => ({
      ...image,
      source: { ...image.source, ...fetch },
      ...(cold && { warm: false }),
    })),
    limits,
    control,
    ...(policy === undefined ? {} : { policy: await readPolicyFile(policy) }),
  };
  const sockets = activatedSockets();
  for (const name of sockets.keys()) {
    if (name === "control" || images.some((image) => image.name === name)) continue;
    throw new MinorfaultError("ERR_BAD_ARGUMENT", `systemd gave a socket for ${name}, which is no image`);
  }
  return startServer(config, { sockets, onEvent: (event) => show(event, options) });
}

function show(event: FrontEvent & { readonly at: string }, { json, quiet }: ServeOptions): void {
  const isBad = event.event === "error" || (event.event === "stopped" && event.code !== 0);
  if (quiet && !isBad) return;
  process.stdout.write(`${json ? JSON.stringify(event) : textOf(event)}\n`);
}

function textOf(event: FrontEvent): string {
  switch (event.event) {
    case "serving":
      return `process ${event.pid} serves ${counted(event.guests, "guest")} after ${msText(event.ms)}: ${event.why}`;
    case "spare":
      return `process ${event.pid} would take over`;
    case "keeper":
      return `process ${event.pid} keeps all descriptors`;
    case "guest":
      return `guest ${event.id}: process ${event.pid} has ${event.image} after ${msText(event.ms)}`;
    case "refused":
      return `process ${event.pid} was refused ${event.image || "an image"}: ${event.message} (${event.code})`;
    case "refusals":
      return `${event.count} more connections were refused`;
    case "ended":
      return `guest ${event.id}: ${event.reason}${event.detail === undefined ? "" : `, ${event.detail}`}`;
    case "error":
      return `error: ${event.message} (${event.code})`;
    case "stopped":
      return `stopped: ${event.why}`;
  }
}

function say({ json, quiet }: ServeOptions, text: string): void {
  if (!json && !quiet) process.stderr.write(`minorfault serve: ${text}\n`);
}

function parseImage(text: string, before: readonly ImageConfig[] = []): readonly ImageConfig[] {
  const at = text.indexOf("=");
  if (at <= 0 || at === text.length - 1) {
    throw new InvalidArgumentError("An image is name=where, such as base=/srv/images/base.");
  }
  const [name, where] = [text.slice(0, at), text.slice(at + 1)];
  if (before.some((image) => image.name === name))
    throw new InvalidArgumentError(`Two images are called ${name}.`);
  return [...before, { name, source: { url: fromHere(where) } }];
}

function parseNumber(text: string): number {
  const value = Number(text);
  if (Number.isSafeInteger(value) && value >= 0 && text.trim() !== "") return value;
  throw new InvalidArgumentError("It is a whole number.");
}
