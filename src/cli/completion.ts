/**
 * `holdfast completion`: for bash, zsh and fish, from the table of commands.
 */

import { COMMANDS, UsageError, nearest, print } from "./command.ts";

const SHELLS: Readonly<Record<string, () => string>> = { bash, zsh, fish };

/** Prints a completion script. */
export async function command([shell, ...rest]: readonly string[]): Promise<number> {
  const names = Object.keys(SHELLS);
  if (shell === undefined) throw new UsageError(`Name a shell: ${names.join(", ")}`);
  if (rest.length > 0) throw new UsageError(`Unexpected argument '${rest[0]}'`);
  const script = Object.hasOwn(SHELLS, shell) ? SHELLS[shell] : undefined;
  if (script === undefined) {
    const near = nearest(shell, names);
    throw new UsageError(`Unknown shell '${shell}'${near === undefined ? "" : `; did you mean '${near}'`}`);
  }
  print(script());
  return 0;
}

/** Commands with what may follow them. */
function rows(): { name: string; summary: string; flags: readonly string[]; words: readonly string[] }[] {
  return COMMANDS.map(({ name, summary, flags, words = [] }) => ({ name, summary, flags, words }));
}

function bash(): string {
  const cases = rows().map(({ name, flags, words }) => `    ${name}) words="${[...words, ...flags].join(" ")}" ;;`);
  const names = rows().map(({ name }) => name);
  return `_holdfast() {
  local current="\${COMP_WORDS[COMP_CWORD]}" words="${[...names, "help"].join(" ")}"
  if [ "$COMP_CWORD" -gt 1 ]; then case "\${COMP_WORDS[1]}" in
${cases.join("\n")}
    help) words="${names.join(" ")}" ;;
    *) words="" ;;
  esac; fi
  COMPREPLY=($(compgen -W "$words" -- "$current"))
  if [ "$COMP_CWORD" -gt 1 ] && [ "\${COMP_WORDS[1]}" != help ]; then COMPREPLY+=($(compgen -f -- "$current")); fi
}
complete -F _holdfast holdfast`;
}

function zsh(): string {
  const commands = rows().map(({ name, summary }) => `    '${name}:${summary}'`);
  const cases = rows().map(
    ({ name, flags, words }) => `      ${name}) compadd -- ${[...words, ...flags].join(" ")} ;;`,
  );
  // Works both as a file on $fpath and read in with \`source\`.
  return `#compdef holdfast
_holdfast() {
  local -a commands=(
${commands.join("\n")}
  )
  if (( CURRENT == 2 )); then _describe command commands
  else
    case $words[2] in
${cases.join("\n")}
    esac
    _files
  fi
}
if [ "$funcstack[1]" = "_holdfast" ]; then _holdfast "$@"; else compdef _holdfast holdfast; fi`;
}

function fish(): string {
  const option = (flag: string) => (flag.startsWith("--") ? `-l ${flag.slice(2)}` : `-s ${flag.slice(1)}`);
  const lines = rows().flatMap(({ name, summary, flags, words }) => [
    `complete -c holdfast -n __fish_use_subcommand -a ${name} -d '${summary}'`,
    ...words.map((word) => `complete -c holdfast -n '__fish_seen_subcommand_from ${name}' -a ${word}`),
    ...flags.map((flag) => `complete -c holdfast -n '__fish_seen_subcommand_from ${name}' ${option(flag)}`),
  ]);
  return lines.join("\n");
}
