/**
 * Reading a command's flags, and saying what they are: the parser, the help
 * and the completion go by the same table (`flag-table.ts`).
 */

import { parseArgs, type ParseArgsOptionsConfig } from "node:util";
import { nearest } from "../base/nearest.ts";

/** One flag. Its type, `short` and `multiple` are parseArgs' own. */
export interface Flag {
  readonly type: "string" | "boolean";
  readonly short?: string;
  readonly multiple?: boolean;
  /** What stands for its value in the help: FILE, NAME. */
  readonly value?: string;
  readonly about: string;
  /** What holds where it is not given, for the help. */
  readonly otherwise?: string;
  /** What its value may be, for completion: these words, a file, a folder. Nothing: nobody can guess it. */
  readonly choices?: readonly string[];
  readonly path?: "file" | "folder";
}

/** The flags of a command, by name without dashes. */
export type FlagTable = Readonly<Record<string, Flag>>;

/** Arguments that do not fit the command. */
export class UsageError extends Error {
  override readonly name = "UsageError";
}

/**
 * Reads flags strictly.
 *
 * @throws {UsageError} naming the flag, and the one that may have been meant.
 */
export function readFlags<T extends ParseArgsOptionsConfig>(args: readonly string[], options: T) {
  try {
    return parseArgs({ args: [...args], options, strict: true, allowPositionals: true });
  } catch (error) {
    const message = (error as Error).message.split(". ")[0]!;
    const [, unknown] = /^Unknown option '(--[^']+)'/.exec(message) ?? [];
    const known = Object.keys(options).map((name) => `--${name}`);
    const near = unknown === undefined ? undefined : nearest(unknown, known);
    throw new UsageError(near === undefined ? message : `${message}; did you mean '${near}'`);
  }
}

/** The lines of a help. */
export function flagLines(flags: FlagTable): string {
  const rows = Object.entries(flags).map(([name, flag]) => ({
    name: `${flag.short === undefined ? "" : `-${flag.short}, `}--${name}${flag.value === undefined ? "" : ` ${flag.value}`}`,
    flag,
  }));
  const width = Math.max(...rows.map(({ name }) => name.length));
  return rows
    .map(({ name, flag: { about, otherwise } }) => {
      return `  ${name.padEnd(width)}  ${about}${otherwise === undefined ? "" : `  (${otherwise})`}`;
    })
    .join("\n");
}

/** Flags as they were given, to be repeated in a hint: " --state-dir /tmp/x"; "" for none. */
export function repeated(values: Readonly<Record<string, string | undefined>>): string {
  return Object.entries(values)
    .filter(([, value]) => value !== undefined)
    .map(([name, value]) => ` --${name} ${shellWord(value!)}`)
    .join("");
}

/** A word that a shell takes as it is. */
export function shellWord(text: string): string {
  return /^[A-Za-z0-9_./:@%+=,-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`;
}
