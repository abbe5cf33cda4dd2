/**
 * From arguments to a command and its exit code.
 */

import { COMMANDS, UsageError, complain, nearest, print } from "./command.ts";

/** Runs the command that the arguments name. @returns the exit code. */
export async function dispatch(args: readonly string[]): Promise<number> {
  const [name, ...rest] = args;
  if (name === undefined || name === "help" || name === "--help" || name === "-h")
    return help(rest[0], name === undefined ? 2 : 0);
  if (name === "--version") return dispatch(["version"]);
  const row = COMMANDS.find((candidate) => candidate.name === name);
  if (row === undefined) return unknownCommand(name);
  if (rest.includes("--help") || rest.includes("-h")) return help(name, 0);
  try {
    const { command } = await row.load();
    return await command(rest);
  } catch (error) {
    if (!(error instanceof UsageError)) throw error;
    complain(`holdfast ${name}: ${error.message}`);
    complain(`See: holdfast help ${name}`);
    return 2;
  }
}

function unknownCommand(name: string): number {
  const names = COMMANDS.map((candidate) => candidate.name);
  const near =
    nearest(name, names) ?? (name === "" ? undefined : names.find((candidate) => candidate.startsWith(name)));
  complain(`holdfast: there is no command "${name}"${near === undefined ? "" : `; did you mean "${near}"`}`);
  complain("See: holdfast help");
  return 2;
}

function help(name: string | undefined, code: number): number {
  const row = COMMANDS.find((candidate) => candidate.name === name);
  if (name !== undefined && row === undefined) return unknownCommand(name);
  if (row !== undefined) print(`${row.summary}.\n\n${row.usage}`);
  else
    print(
      `Holdfast keeps a Kubernetes node at work while its link to the control plane is gone.\n\nCommands:\n${COMMANDS.map((one) => `  ${one.name.padEnd(12)}${one.summary}`).join("\n")}\n\nSee: holdfast help COMMAND`,
    );
  return code;
}
