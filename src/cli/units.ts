/**
 * `holdfast units`: the unit files of a node, on stdout or into a folder.
 *
 * The folder stands for the root of a file system: an image builder names its
 * tree, the installer a folder of its own.
 */

import { totalmem } from "node:os";
import { join } from "node:path";
import { writeFileAtomically } from "../base/atomic-file.ts";
import { profileOf, ProfileError } from "../base/reexec.ts";
import { DEFAULT_BINARY } from "../machine/places.ts";
import { unitFiles, type SystemFile } from "../machine/units.ts";
import { UNITS_FLAGS } from "./flag-table.ts";
import { readFlags, UsageError } from "./flags.ts";
import { print, writeOut } from "./terminal.ts";

/** Prints or writes the unit files. */
export async function command(args: readonly string[]): Promise<number> {
  const { values, positionals } = readFlags(args, UNITS_FLAGS);
  if (positionals.length > 0) throw new UsageError(`Unexpected argument '${positionals[0]}'`);
  const binary = values.binary ?? DEFAULT_BINARY;
  // It stands in a line of systemd's, unquoted.
  if (!/^\/[A-Za-z0-9._/+-]+$/.test(binary))
    throw new UsageError(`--binary: expected an absolute path without spaces and quotes, got '${binary}'`);
  const files = unitFiles({ profile: chosenProfile(values.profile), binary });
  const root = values["output-dir"];
  if (root === undefined) {
    writeOut(files.map(asText).join("\n"));
    return 0;
  }
  for (const { path, text, mode } of files) writeFileAtomically(join(root, path), text, mode);
  print(`${files.length} files in ${root}:`);
  for (const { path } of files) print(join(root, path));
  return 0;
}

function asText({ path, text }: SystemFile): string {
  return `# ${path}\n${text}`;
}

function chosenProfile(asked: string | undefined) {
  try {
    return profileOf(asked, totalmem());
  } catch (error) {
    if (!(error instanceof ProfileError)) throw error;
    throw new UsageError(`--profile: expected small or default, got '${asked}'`);
  }
}
