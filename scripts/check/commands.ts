/**
 * The checks that other programs make: the formatter, the linter, the compiler.
 */

import { existsSync } from "node:fs";
import { join } from "node:path";
import { projectRoot } from "../setup.ts";

/** A check made by a program. */
export interface CommandCheck {
  readonly name: string;
  readonly command: readonly string[];
  /** What to do when it fails. */
  readonly remedy: string;
}

const FOLDERS = ["src", "scripts", "test"];

/** The checks of a tree that is laid out as this one is. */
export function commandChecks(root: string): CommandCheck[] {
  const folders = FOLDERS.filter((folder) => existsSync(join(root, folder)));
  const program = (name: string) => join(projectRoot, "node_modules", ".bin", name);
  return [
    {
      name: "format",
      command: [process.execPath, "fmt", "--no-script", "--check", ...folders],
      remedy: "bun run fmt",
    },
    {
      name: "lint",
      command: [program("oxlint"), "--quiet", ...folders],
      remedy: "mend what it names; the rules are in .oxlintrc.json",
    },
    { name: "types", command: [program("tsc"), "--noEmit"], remedy: "mend what it names" },
  ];
}

/** Runs one in a tree. @returns what the program said, or undefined if it was content. */
export function complaintOf({ command }: CommandCheck, root: string): string | undefined {
  const { exitCode, stdout, stderr } = Bun.spawnSync([...command], { cwd: root, stdout: "pipe", stderr: "pipe" });
  return exitCode === 0 ? undefined : `${stdout.toString()}${stderr.toString()}`.trim();
}
