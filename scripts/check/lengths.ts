/**
 * A file tells one story, a function fits on a page.
 *
 * A file of src has at most 400 lines, a function at most 50; blank lines and
 * comments of a function do not count, so that reasons and timelines cost
 * nothing. The linter's parser counts, by `lengths.json`. What stands on the
 * list was longer when the rule came; the list only shrinks: an entry that is
 * not needed any more is a finding too.
 */

import { existsSync } from "node:fs";
import { join } from "node:path";
import { projectRoot } from "../setup.ts";
import type { Problem } from "./report.ts";

/** Files, and functions as FILE#NAME, that were longer when the rule came. */
export const KNOWN_LONG: readonly string[] = [];

interface Diagnostic {
  readonly filename: string;
  readonly message: string;
}

/**
 * Finds files and functions of a tree's src that are too long, and entries of the list that are not.
 *
 * @throws {Error} when the linter does not run.
 */
export function tooLong(root: string, known: readonly string[] = KNOWN_LONG): Problem[] {
  if (!existsSync(join(root, "src"))) return [];
  const { stdout, stderr } = Bun.spawnSync(
    [
      join(projectRoot, "node_modules", ".bin", "oxlint"),
      "-c",
      join(projectRoot, "scripts", "check", "lengths.json"),
      ...["--format", "json", "src"],
    ],
    { cwd: root, stdout: "pipe", stderr: "pipe" },
  );
  const found = diagnosticsOf(stdout.toString(), stderr.toString()).map((diagnostic) => ({
    at: placeOf(diagnostic),
    problem: {
      file: diagnostic.filename,
      problem: diagnostic.message,
      remedy: "name a part of it and give it a place",
    },
  }));
  const unknown = found.filter(({ at }) => !known.includes(at)).map(({ problem }) => problem);
  const needless = known.filter((at) => !found.some((one) => one.at === at));
  const remedy = "take it off KNOWN_LONG in scripts/check/lengths.ts";
  return [...unknown, ...needless.map((file) => ({ file, problem: "is not too long any more", remedy }))];
}

function diagnosticsOf(output: string, complaint: string): readonly Diagnostic[] {
  try {
    return (JSON.parse(output) as { diagnostics: Diagnostic[] }).diagnostics;
  } catch {
    throw new Error(`Cannot count lines: the linter said ${complaint.slice(0, 500) || output.slice(0, 500)}`);
  }
}

function placeOf({ filename, message }: Diagnostic): string {
  const [, name] = /`([^`]+)`/.exec(message) ?? [];
  return name === undefined ? filename : `${filename}#${name}`;
}
