/**
 * `holdfast completion`: for bash, zsh and fish, from the table of commands.
 */

import { COMMANDS, UsageError, print } from "./command.ts";

/** Prints a completion script. */
export async function command([shell]: readonly string[]): Promise<number> {
  const names = COMMANDS.map(({ name }) => name).join(" ");
  if (shell === "bash") {
    const cases = COMMANDS.map(
      ({ name, flags }) =>
        `    ${name}) words="${flags.join(" ")}${name === "cache" ? " ls get verify" : ""}${name === "completion" ? "bash zsh fish" : ""}" ;;`,
    );
    print(
      `_holdfast() {\n  local words="${names} help"\n  if [ "$COMP_CWORD" -gt 1 ]; then case "\${COMP_WORDS[1]}" in\n${cases.join("\n")}\n    *) words="" ;;\n  esac; fi\n  COMPREPLY=($(compgen -W "$words" -- "\${COMP_WORDS[COMP_CWORD]}") $(compgen -f -- "\${COMP_WORDS[COMP_CWORD]}"))\n}\ncomplete -F _holdfast holdfast`,
    );
  } else if (shell === "zsh") {
    const commands = COMMANDS.map(({ name, summary }) => `    '${name}:${summary}'`);
    const cases = COMMANDS.map(({ name, flags }) => `      ${name}) compadd -- ${flags.join(" ")} ;;`);
    print(
      `#compdef holdfast\n_holdfast() {\n  local -a commands=(\n${commands.join("\n")}\n  )\n  if (( CURRENT == 2 )); then _describe command commands\n  else\n    case $words[2] in\n${cases.join("\n")}\n    esac\n    _files\n  fi\n}\n_holdfast "$@"`,
    );
  } else if (shell === "fish") {
    const lines = COMMANDS.flatMap(({ name, summary, flags }) => [
      `complete -c holdfast -n __fish_use_subcommand -a ${name} -d '${summary}'`,
      ...flags.map(
        (flag) =>
          `complete -c holdfast -n '__fish_seen_subcommand_from ${name}' ${flag.startsWith("--") ? `-l ${flag.slice(2)}` : `-s ${flag.slice(1)}`}`,
      ),
    ]);
    print(lines.join("\n"));
  } else {
    throw new UsageError(shell === undefined ? "Name a shell" : `Unknown shell '${shell}'`);
  }
  return 0;
}
