/**
 * From arguments to a command and its exit code.
 *
 * Whatever a command throws ends as a line of words: a stack trace helps
 * nobody who is not at this code.
 */

import { EdgeError } from "../base/errors.ts";
import { nearest } from "../base/nearest.ts";
import { COMMANDS } from "./commands.ts";
import { flagLines, UsageError } from "./flags.ts";
import { onStray } from "./strays.ts";
import { complain, print, short } from "./terminal.ts";

const MAX_WORDS = 300;

/** Runs the command that the arguments name. @returns the exit code. */
export async function dispatch(args: readonly string[]): Promise<number> {
  const [name, ...rest] = args;
  if (name === undefined || name === "help" || name === "--help" || name === "-h")
    return help(rest[0], name === undefined ? 2 : 0);
  if (name === "--version") return dispatch(["version"]);
  const row = COMMANDS.find((candidate) => candidate.name === name);
  if (row === undefined) return unknownCommand(name);
  if (rest.includes("--help") || rest.includes("-h")) return help(name, 0);
  onStray((error) => process.exit(failed(name, error)));
  try {
    const { command } = await row.load();
    return await command(rest, COMMANDS);
  } catch (error) {
    return failed(name, error);
  }
}

/** Says in one line what went wrong. @returns the exit code. */
function failed(name: string, error: unknown): number {
  if (error instanceof UsageError) {
    complain(`holdfast ${name}: ${error.message}`);
    complain(`See: holdfast help ${name}`);
    return 2;
  }
  const words = error instanceof Error ? (error.message.split("\n")[0] ?? error.name) : typeof error;
  complain(`holdfast ${name}: ${error instanceof EdgeError ? words : short(`unexpected: ${words}`, MAX_WORDS)}`);
  complain(`See: holdfast help ${name}`);
  return 1;
}

function unknownCommand(name: string): number {
  const names = COMMANDS.map((candidate) => candidate.name);
  const near =
    nearest(name, names) ?? (name === "" ? undefined : names.find((candidate) => candidate.startsWith(name)));
  complain(`holdfast: there is no command "${short(name)}"${near === undefined ? "" : `; did you mean "${near}"`}`);
  complain("See: holdfast help");
  return 2;
}

function help(name: string | undefined, code: number): number {
  const row = COMMANDS.find((candidate) => candidate.name === name);
  if (name !== undefined && row === undefined) return unknownCommand(name);
  if (row === undefined)
    print(
      `Holdfast keeps a Kubernetes node at work while its link to the control plane is gone.\n\nCommands:\n${COMMANDS.map((one) => `  ${one.name.padEnd(12)}${one.summary}`).join("\n")}\n\nSee: holdfast help COMMAND`,
    );
  else {
    const flags = Object.keys(row.flags).length === 0 ? [] : [flagLines(row.flags)];
    const note = row.note === undefined ? [] : [`  ${row.note}`];
    print([`${row.summary}.`, row.synopsis, ...flags, ...note].join("\n\n"));
  }
  return code;
}
