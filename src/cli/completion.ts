/**
 * `holdfast completion`: for bash, zsh and fish, from the table of commands.
 *
 * The same three questions in each shell's tongue: which command; what may the
 * value of the flag before the cursor be; which words and flags may follow.
 * Every text of the table is quoted: an apostrophe in a summary ends no string.
 */

import { join } from "node:path";
import { writeFileAtomically } from "../base/atomic-file.ts";
import { nearest } from "../base/nearest.ts";
import { BUILT_AT, VERSION } from "../base/version.ts";
import type { CommandRow } from "./commands.ts";
import { COMPLETION_FLAGS } from "./flag-table.ts";
import { readFlags, UsageError, type Flag } from "./flags.ts";
import { manPages } from "./man-pages.ts";
import { print } from "./terminal.ts";

const SHELLS: Readonly<Record<string, (commands: readonly CommandRow[]) => string>> = { bash, zsh, fish };

/** Where shells and man look for what a machine's administrator has brought. */
const FOLDERS: Readonly<Record<string, string>> = {
  bash: "usr/local/share/bash-completion/completions/holdfast",
  zsh: "usr/local/share/zsh/site-functions/_holdfast",
  fish: "usr/local/share/fish/vendor_completions.d/holdfast.fish",
};
const MAN_FOLDER = "usr/local/share/man/man1";

/** Prints a completion script, or writes all of them and the manual pages. */
export async function command(args: readonly string[], commands: readonly CommandRow[]): Promise<number> {
  const { values, positionals } = readFlags(args, COMPLETION_FLAGS);
  const [shell, ...rest] = positionals;
  const root = values["output-dir"];
  const names = Object.keys(SHELLS);
  if (root !== undefined && shell === undefined) {
    for (const path of writeAll(root, commands)) print(path);
    return 0;
  }
  if (shell === undefined) throw new UsageError(`Name a shell: ${names.join(", ")}`);
  if (rest.length > 0 || root !== undefined) throw new UsageError(`Unexpected argument '${rest[0] ?? shell}'`);
  const script = Object.hasOwn(SHELLS, shell) ? SHELLS[shell] : undefined;
  if (script === undefined) {
    const near = nearest(shell, names);
    throw new UsageError(`Unknown shell '${shell}'${near === undefined ? "" : `; did you mean '${near}'`}`);
  }
  print(script(commands));
  return 0;
}

/** @returns the paths. */
function writeAll(root: string, commands: readonly CommandRow[]): string[] {
  const date = BUILT_AT.slice(0, 10);
  const files = [
    ...SHELL_NAMES.map((shell) => [FOLDERS[shell]!, `${completionScript(shell, commands)}\n`] as const),
    ...[...manPages(commands, VERSION, date)].map(([name, text]) => [`${MAN_FOLDER}/${name}`, text] as const),
  ];
  return files.map(([path, text]) => {
    writeFileAtomically(join(root, path), text, 0o644);
    return join(root, path);
  });
}

/** The shells it speaks to. */
export const SHELL_NAMES: readonly string[] = Object.keys(SHELLS);

/** A shell's script. @param shell of SHELL_NAMES. */
export function completionScript(shell: string, commands: readonly CommandRow[]): string {
  return SHELLS[shell]!(commands);
}

/** What a flag's value may be, in one word; undefined for a flag without one. */
function kindOf({ type, choices, path }: Flag): "file" | "folder" | "unknown" | readonly string[] | undefined {
  if (type === "boolean") return undefined;
  return choices ?? path ?? "unknown";
}

/** A flag as it is typed: long, and short where there is one. */
function spellings(name: string, { short }: Flag): string[] {
  return [`--${name}`, ...(short === undefined ? [] : [`-${short}`])];
}

/** For POSIX shells and zsh: as it is. */
function quoted(text: string): string {
  return `'${text.replaceAll("'", String.raw`'\''`)}'`;
}

/** Lines of a `case` over "COMMAND FLAG", each with what completes its value. */
function valueCases(
  commands: readonly CommandRow[],
  complete: (kind: "file" | "folder" | "unknown" | readonly string[]) => string,
): string[] {
  return commands.flatMap(({ name, flags }) =>
    Object.entries(flags).flatMap(([flagName, flag]) => {
      const kind = kindOf(flag);
      if (kind === undefined) return [];
      const patterns = spellings(flagName, flag).map((spelling) => quoted(`${name} ${spelling}`));
      return [`    ${patterns.join("|")}) ${complete(kind)}; return ;;`];
    }),
  );
}

function bash(commands: readonly CommandRow[]): string {
  const names = commands.map(({ name }) => name).join(" ");
  const reply = (how: string) => `mapfile -t COMPREPLY < <(compgen ${how} -- "$current")`;
  const values = valueCases(commands, (kind) => {
    if (kind === "unknown") return "true";
    if (kind === "file") return `compopt -o filenames 2>/dev/null; ${reply("-f")}`;
    if (kind === "folder") return `compopt -o filenames 2>/dev/null; ${reply("-d")}`;
    return reply(`-W ${quoted(kind.join(" "))}`);
  });
  const words = commands.map(
    ({ name, flags, words: more = [] }) =>
      `    ${name}) words=${quoted([...more, ...Object.entries(flags).flatMap(([flag, row]) => spellings(flag, row))].join(" "))} ;;`,
  );
  return `_holdfast() {
  local current="\${COMP_WORDS[COMP_CWORD]}" before="\${COMP_WORDS[COMP_CWORD-1]}" words=""
  COMPREPLY=()
  if [ "$COMP_CWORD" -eq 1 ]; then ${reply(`-W ${quoted(`${names} help`)}`)}; return; fi
  # "--flag=value" comes as three words.
  if [ "$current" = "=" ]; then current=""; elif [ "$before" = "=" ]; then before="\${COMP_WORDS[COMP_CWORD-2]}"; fi
  case "\${COMP_WORDS[1]} $before" in
${values.join("\n")}
  esac
  case "\${COMP_WORDS[1]}" in
${words.join("\n")}
    help) words=${quoted(names)} ;;
  esac
  ${reply('-W "$words"')}
}
complete -F _holdfast holdfast`;
}

function zsh(commands: readonly CommandRow[]): string {
  // _describe splits at the first colon that has no backslash.
  const described = (name: string, about: string) =>
    `    ${quoted(`${name.replaceAll(":", "\\:")}:${about.replaceAll("\\", "\\\\")}`)}`;
  const values = valueCases(commands, (kind) => {
    if (kind === "unknown") return "_message value";
    if (kind === "file") return "_files";
    if (kind === "folder") return "_files -/";
    return `compadd -- ${kind.map(quoted).join(" ")}`;
  });
  const cases = commands.map(({ name, flags, words = [] }) => {
    const options = Object.entries(flags).flatMap(([flag, row]) =>
      spellings(flag, row).map((spelling) => described(spelling, row.about).trim()),
    );
    const plain = words.length === 0 ? "" : `compadd -- ${words.map(quoted).join(" ")}; `;
    return `    ${name}) ${plain}options=(${options.join(" ")}) ;;`;
  });
  // Works both as a file on $fpath and read in with \`source\`.
  return `#compdef holdfast
_holdfast() {
  local -a commands options
  commands=(
${commands.map(({ name, summary }) => described(name, summary)).join("\n")}
    'help:Say what a command does'
  )
  if (( CURRENT == 2 )); then _describe command commands; return; fi
  case "$words[2] $words[CURRENT-1]" in
${values.join("\n")}
  esac
  case "$words[2]" in
${cases.join("\n")}
    help) compadd -- ${commands.map(({ name }) => quoted(name)).join(" ")} ;;
  esac
  if (( $#options )); then _describe -o option options; fi
}
if [ "$funcstack[1]" = "_holdfast" ]; then _holdfast "$@"; else compdef _holdfast holdfast; fi`;
}

function fish(commands: readonly CommandRow[]): string {
  // Between single quotes fish knows two escapes.
  const text = (plain: string) => `'${plain.replaceAll("\\", "\\\\").replaceAll("'", "\\'")}'`;
  const valueOf = (flag: Flag) => {
    const kind = kindOf(flag);
    if (kind === undefined) return "";
    if (kind === "file") return " -r -F";
    if (kind === "folder") return ` -x -a '(__fish_complete_directories)'`;
    return kind === "unknown" ? " -x" : ` -x -a ${text(kind.join(" "))}`;
  };
  const lines = commands.flatMap(({ name, summary, flags, words = [] }) => [
    `complete -c holdfast -n __fish_use_subcommand -a ${name} -d ${text(summary)}`,
    `complete -c holdfast -n '__fish_seen_subcommand_from help' -a ${name} -d ${text(summary)}`,
    ...words.map((word) => `complete -c holdfast -n '__fish_seen_subcommand_from ${name}' -a ${word}`),
    ...Object.entries(flags).map(([flag, row]) => {
      const short = row.short === undefined ? "" : ` -s ${row.short}`;
      return `complete -c holdfast -n '__fish_seen_subcommand_from ${name}' -l ${flag}${short}${valueOf(row)} -d ${text(row.about)}`;
    }),
  ]);
  return ["complete -c holdfast -f", "complete -c holdfast -n __fish_use_subcommand -a help", ...lines].join("\n");
}
