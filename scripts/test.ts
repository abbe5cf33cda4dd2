/**
 * `bun run test`: everything that needs no cluster and no root.
 *
 * Every folder of test/ but the lab's belongs to it, so a new folder runs
 * without being listed. Builds the executable of this machine first, because
 * tests start it as a process. The report goes to .cache/junit/test.xml.
 *
 * Arguments are handed to `bun test`; a path among them replaces the folders:
 *
 *   bun run test test/front
 *   bun run test -t "a cut"
 */

import { existsSync, mkdirSync, readdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { ensureDependencies, projectRoot, run } from "./setup.ts";

/** The folders that `bun run test` runs. */
export function fastFolders(root: string): string[] {
  const entries = readdirSync(join(root, "test"), { withFileTypes: true });
  const folders = entries.filter((entry) => entry.isDirectory() && entry.name !== "lab");
  return folders.map(({ name }) => `./test/${name}`).sort();
}

if (import.meta.main) {
  ensureDependencies();
  run([process.execPath, "scripts/build-targets.ts", "--native"]);
  const report = join(projectRoot, ".cache", "junit", "test.xml");
  mkdirSync(join(report, ".."), { recursive: true });
  // A run that dies must not leave the last run's report to be counted.
  rmSync(report, { force: true });
  const asked = process.argv.slice(2);
  const isPathAsked = asked.some((argument) => !argument.startsWith("-") && existsSync(join(projectRoot, argument)));
  const paths = isPathAsked ? [] : fastFolders(projectRoot);
  // bunfig.toml knows no timeout: here it must stand.
  const options = ["--timeout=60000", "--reporter=junit", `--reporter-outfile=${report}`];
  run([process.execPath, "test", ...options, ...paths, ...asked]);
}
