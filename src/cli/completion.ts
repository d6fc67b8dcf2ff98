// `minorfault completion`: a script for the shell, made from the commands as they are.
//
// The script knows the commands, their verbs and their options; for everything else it offers files.

import { Argument, type Command } from "@commander-js/extra-typings";

const SHELLS = ["bash", "zsh", "fish"] as const;
type Shell = (typeof SHELLS)[number];

const EXAMPLES = `
Examples:
  $ eval "$(minorfault completion bash)"
  $ minorfault completion zsh > ~/.zfunc/_minorfault
  $ minorfault completion fish > ~/.config/fish/completions/minorfault.fish`;

export function registerCompletion(program: Command): void {
  program
    .command("completion")
    .description("prints a script that completes commands and options in a shell")
    .addArgument(new Argument("<shell>", "the shell").choices(SHELLS))
    .addHelpText("after", EXAMPLES)
    .action((shell) => {
      process.stdout.write(completionScript(program, shell as Shell));
    });
}

/** A command with the words that lead to it, and what may stand behind it. */
interface Node {
  /** "image create"; empty for the program itself. */
  readonly path: string;
  readonly commands: readonly { readonly name: string; readonly text: string }[];
  readonly options: readonly {
    readonly long: string;
    readonly text: string;
    readonly choices: readonly string[];
  }[];
  /** Choices of the first argument. */
  readonly choices: readonly string[];
}

export function completionScript(program: Command, shell: Shell): string {
  const nodes = nodesOf(program, "");
  return { bash, zsh, fish }[shell](nodes);
}

function nodesOf(command: Command, path: string): Node[] {
  const commands = command.commands.map((each) => ({ name: each.name(), text: each.description() }));
  const options = [
    ...command.options.flatMap(({ long, description, argChoices }) =>
      long ? [{ long, text: description, choices: argChoices ?? [] }] : [],
    ),
    { long: "--help", text: "display help for command", choices: [] },
  ];
  const choices = command.registeredArguments[0]?.argChoices ?? [];
  const below = command.commands.flatMap((each) =>
    nodesOf(each as unknown as Command, path === "" ? each.name() : `${path} ${each.name()}`),
  );
  return [{ path, commands, options, choices }, ...below];
}

function wordsOf({ commands, choices, options }: Node): string {
  return [...commands.map(({ name }) => name), ...choices, ...options.map(({ long }) => long)].join(" ");
}

function bash(nodes: readonly Node[]): string {
  const cases = nodes.map((node) => `    "${node.path}") words="${wordsOf(node)}" ;;`);
  const paths = nodes.map(({ path }) => `"${path}"`).join(" ");
  return `# minorfault: completion for bash
_minorfault() {
  local word="\${COMP_WORDS[COMP_CWORD]}" path="" part next known words=""
  for part in "\${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
    next="\${path:+$path }$part"
    for known in ${paths}; do
      [ "$known" = "$next" ] && path="$next"
    done
  done
  case "$path" in
${cases.join("\n")}
  esac
  COMPREPLY=($(compgen -W "$words" -- "$word"))
}
complete -o bashdefault -o default -F _minorfault minorfault
`;
}

function zsh(nodes: readonly Node[]): string {
  const cases = nodes.map((node) => `    "${node.path}") candidates=(${zshWords(node)}) ;;`);
  const paths = nodes.map(({ path }) => `"${path}"`).join(" ");
  return `#compdef minorfault
# minorfault: completion for zsh
_minorfault() {
  local at="" part next known
  local -a candidates
  for part in "\${(@)words[2,CURRENT-1]}"; do
    next="\${at:+$at }$part"
    for known in ${paths}; do
      [[ "$known" == "$next" ]] && at="$next"
    done
  done
  case "$at" in
${cases.join("\n")}
  esac
  _describe 'minorfault' candidates
  _files
}
if [ "$funcstack[1]" = "_minorfault" ]; then _minorfault "$@"; else compdef _minorfault minorfault; fi
`;
}

function zshWords({ commands, choices, options }: Node): string {
  const described = [
    ...commands.map(({ name, text }) => ({ word: name, text })),
    ...choices.map((choice) => ({ word: choice, text: "" })),
    ...options.map(({ long, text }) => ({ word: long, text })),
  ];
  return described
    .map(({ word, text }) => quoted(text === "" ? word : `${word}:${text.replaceAll(":", "\\:")}`))
    .join(" ");
}

function fish(nodes: readonly Node[]): string {
  const lines = nodes.flatMap(({ path, commands, options, choices }) => {
    const parts = path === "" ? [] : path.split(" ");
    const below = commands.map(({ name }) => name).join(" ");
    const seen = parts.map((part) => `__fish_seen_subcommand_from ${part}`);
    const none = below === "" ? [] : [`not __fish_seen_subcommand_from ${below}`];
    const condition = [...seen, ...none].join("; and ");
    const start = `complete -c minorfault -n ${quoted(condition === "" ? "true" : condition)}`;
    return [
      ...commands.map(({ name, text }) => `${start} -f -a ${name} -d ${quoted(text)}`),
      ...choices.map((choice) => `${start} -f -a ${choice}`),
      ...options.map(({ long, text, choices: values }) =>
        [
          start,
          `-l ${long.slice(2)}`,
          `-d ${quoted(text)}`,
          values.length ? `-x -a ${quoted(values.join(" "))}` : "",
        ]
          .filter((part) => part !== "")
          .join(" "),
      ),
    ];
  });
  return `# minorfault: completion for fish\n${lines.join("\n")}\n`;
}

function quoted(text: string): string {
  return `'${text.replaceAll("'", "'\\''")}'`;
}
