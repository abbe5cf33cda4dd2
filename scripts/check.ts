/**
 * `bun run check`: format, lint, types, docstrings, imports, forbidden uses, lengths.
 *
 * Every check runs, and names the file and the remedy; the exit code says
 * whether all were content.
 */

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { Glob } from "bun";
import { commandChecks, complaintOf } from "./check/commands.ts";
import { missingDocstrings } from "./check/docstrings.ts";
import { forbiddenUses } from "./check/forbidden.ts";
import { wrongImports } from "./check/imports.ts";
import { tooLong } from "./check/lengths.ts";
import type { Problem, SourceFile } from "./check/report.ts";
import { ensureDependencies, projectRoot } from "./setup.ts";

function main(): number {
  ensureDependencies();
  const sources = filesOf(["src/**/*.ts"]);
  const all = [...sources, ...filesOf(["scripts/**/*.ts", "test/**/*.ts", "*.md", "*.sh"])];
  const checks: readonly (readonly [string, Problem[]])[] = [
    ["docstrings", missingDocstrings(sources)],
    ["imports", wrongImports(sources)],
    ["forbidden", forbiddenUses(all)],
    ["lengths", tooLong(projectRoot)],
  ];
  let failures = 0;
  for (const check of commandChecks(projectRoot)) {
    const complaint = complaintOf(check, projectRoot);
    if (complaint !== undefined) failures++;
    console.log(complaint === undefined ? `ok   ${check.name}` : `FAIL ${check.name}; ${check.remedy}\n${complaint}`);
  }
  for (const [name, problems] of checks) {
    if (problems.length > 0) failures++;
    console.log(`${problems.length === 0 ? "ok  " : "FAIL"} ${name}`);
    for (const { file, problem, remedy } of problems) console.log(`  ${file}: ${problem}; ${remedy}`);
  }
  return failures === 0 ? 0 : 1;
}

function filesOf(patterns: readonly string[]): SourceFile[] {
  const paths = patterns.flatMap((pattern) => [...new Glob(pattern).scanSync(projectRoot)]);
  return paths.sort().map((path) => ({ path, text: readFileSync(join(projectRoot, path), "utf8") }));
}

process.exit(main());
