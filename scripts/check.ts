/**
 * `bun run check`: format, lint, types, docstrings, imports, forbidden uses.
 *
 * Every check runs; the exit code says whether all were content.
 */

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { Glob } from "bun";
import { missingDocstrings } from "./check/docstrings.ts";
import { forbiddenUses } from "./check/forbidden.ts";
import { wrongImports } from "./check/imports.ts";
import type { Problem, SourceFile } from "./check/report.ts";
import { ensureDependencies, projectRoot } from "./setup.ts";

ensureDependencies();
const bin = (name: string) => join(projectRoot, "node_modules", ".bin", name);
const commands: readonly (readonly [string, readonly string[]])[] = [
  ["format", [process.execPath, "fmt", "--no-script", "--check", "src", "scripts", "test"]],
  ["lint", [bin("oxlint"), "--quiet", "src", "scripts", "test"]],
  ["types", [bin("tsc"), "--noEmit"]],
];
const files: SourceFile[] = [...new Glob("src/**/*.ts").scanSync(projectRoot)].sort().map((path) => ({ path, text: readFileSync(join(projectRoot, path), "utf8") }));
const checks: readonly (readonly [string, () => Problem[]])[] = [
  ["docstrings", () => missingDocstrings(files)],
  ["imports", () => wrongImports(files)],
  ["forbidden", () => forbiddenUses(files)],
];

let failures = 0;
for (const [name, command] of commands) {
  const { exitCode, stdout, stderr } = Bun.spawnSync([...command], { cwd: projectRoot, stdout: "pipe", stderr: "pipe" });
  if (exitCode !== 0) failures++;
  console.log(`${exitCode === 0 ? "ok  " : "FAIL"} ${name}`);
  if (exitCode !== 0) console.log(`${stdout.toString()}${stderr.toString()}`.trim());
}
for (const [name, check] of checks) {
  const problems = check();
  if (problems.length > 0) failures++;
  console.log(`${problems.length === 0 ? "ok  " : "FAIL"} ${name}`);
  for (const { file, problem, remedy } of problems) console.log(`  ${file}: ${problem}; ${remedy}`);
}
for (const { path, text } of files) {
  const lines = text.split("\n").length;
  if (lines > 400 && !path.startsWith("src/demo/")) console.log(`note ${path} has ${lines} lines: is it two stories?`);
}
process.exit(failures === 0 ? 0 : 1);
