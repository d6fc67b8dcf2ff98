// `minorfault doctor`: what this host offers, what that means, what to change.

import type { Command } from "@commander-js/extra-typings";
import {
  changesFor,
  examineHost,
  explainWay,
  type HostReport,
  hostExitCode,
  type Use,
  usesOf,
} from "../uffd/kernel/index.ts";
import { paint } from "./terminal.ts";

const EXAMPLES = `
Exit code: 0 the kernel's userfaultfd with everything, 1 with restrictions, 3 only the software implementation.

Examples:
  $ minorfault doctor
  $ minorfault doctor --json | jq .features`;

export function registerDoctor(program: Command): void {
  program
    .command("doctor")
    .description("says what this host offers for user-space paging, what that means, and what to change")
    .option("--json", "print the report as JSON")
    .addHelpText("after", EXAMPLES)
    .action(({ json }) => {
      const host = examineHost();
      const report = { ...host, uses: usesOf(host), changes: changesFor(host), exitCode: hostExitCode(host) };
      console.log(json ? JSON.stringify(report, null, 2) : render(host));
      process.exitCode = report.exitCode;
    });
}

function render(host: HostReport): string {
  return [
    heading("This host"),
    row(
      "system",
      `${host.platform} ${host.kernel} on ${host.arch}, Node ${host.node}, ${host.pageSize}-byte pages`,
    ),
    row(
      "system calls",
      host.native.works ? mark("yes", "made through koffi") : mark("no", host.native.reason ?? ""),
    ),
    row(
      "privileges",
      `uid ${host.privileges.uid}, CAP_SYS_PTRACE ${host.privileges.ptrace ? "yes" : "no"}, ` +
        `vm.unprivileged_userfaultfd ${host.privileges.unprivilegedUserfaultfd}, seccomp ${host.privileges.seccomp}` +
        (host.privileges.noNewPrivileges ? ", no new privileges" : ""),
    ),
    row("container", host.container),
    row("KVM", host.kvm.works ? mark("yes", "/dev/kvm works") : mark("no", host.kvm.reason ?? "")),
    row(
      "huge pages",
      `${host.hugePages.free} of ${host.hugePages.total} free; transparent: ${host.transparentHugePages}`,
    ),
    row("limits", renderLimits(host.limits)),
    ...renderUserfaultfd(host),
    heading("What that means"),
    ...usesOf(host).map(renderUse),
    ...renderChanges(host),
  ].join("\n");
}

function renderUserfaultfd(host: HostReport): string[] {
  if (host.ways.length === 0) return [];
  return [
    heading("userfaultfd"),
    ...host.ways.map((way) => row(way.way, mark(way.works ? "yes" : "no", explainWay(way, host)))),
    row(
      "features",
      host.features.length === 0 ? "none" : `${host.features.length}: ${host.features.join(" ")}`,
    ),
    ...(host.missingFeatures.length > 0 ? [row("lacking", host.missingFeatures.join(" "))] : []),
    ...host.memory.map(({ kind, modes, ioctls, reason }) =>
      row(`${kind} memory`, reason ?? `${modes.join("|")}: ${ioctls.join(" ")}`),
    ),
  ];
}

function renderChanges(host: HostReport): string[] {
  const changes = changesFor(host);
  if (changes.length === 0) return [heading("What to change"), "  nothing"];
  return [
    heading("What to change"),
    ...changes.map(({ gain, how }) => `  ${how}\n           so that you get ${gain}`),
  ];
}

function renderLimits(limits: HostReport["limits"]): string {
  const gib = (bytes: number) => `${(bytes / 2 ** 30).toFixed(1)} GiB`;
  const parts = [`memory ${gib(limits.memoryBytes)} (${gib(limits.memoryFreeBytes)} free)`];
  if (limits.memoryCgroupBytes !== undefined) parts.push(`cgroup ${gib(limits.memoryCgroupBytes)}`);
  if (limits.openFiles !== undefined) parts.push(`${limits.openFiles} open files`);
  if (limits.mapCountMax !== undefined) parts.push(`${limits.mapCountMax} mappings`);
  if (limits.viewBytes === 2 ** 32) parts.push("4 GiB an ArrayBuffer (Node 22 lifts that)");
  return parts.join(", ");
}

function renderUse({ name, verdict, why }: Use): string {
  return `  ${mark(verdict, name)}\n           ${why}`;
}

function heading(text: string): string {
  return `\n${paint("bold", text)}`;
}

function row(name: string, text: string): string {
  return `  ${name.padEnd(15)} ${text}`;
}

function mark(verdict: Use["verdict"], text: string): string {
  const [colour, word] = { yes: ["green", "yes"], limited: ["yellow", "limited"], no: ["red", "no"] }[
    verdict
  ] as ["green" | "yellow" | "red", string];
  return `${paint(colour, word.padEnd(7))}  ${text}`;
}
