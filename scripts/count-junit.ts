/**
 * Sums up JUnit reports: "N passed, N failed, N skipped".
 *
 *   bun scripts/count-junit.ts REPORT.xml ...
 *
 * Exits 1 when a report is missing, nothing ran, or anything failed.
 */

import { existsSync, readFileSync } from "node:fs";

/** What the runner counted. */
export interface Counts {
  readonly passed: number;
  readonly failed: number;
  readonly skipped: number;
}

/** Counts the test cases of one report. */
export function countReport(xml: string): Counts {
  let [passed, failed, skipped] = [0, 0, 0];
  for (const [, attributes, body] of xml.matchAll(/<testcase\b((?:[^>"]|"[^"]*")*?)(?:\/>|>([\s\S]*?)<\/testcase>)/g)) {
    void attributes;
    if (/<(failure|error)\b/.test(body ?? "")) failed++;
    else if (/<skipped\b/.test(body ?? "")) skipped++;
    else passed++;
  }
  return { passed, failed, skipped };
}

if (import.meta.main) {
  const paths = process.argv.slice(2);
  const missing = paths.filter((path) => !existsSync(path));
  for (const path of missing) console.error(`report missing: ${path}`);
  const counts = paths.filter((path) => existsSync(path)).map((path) => countReport(readFileSync(path, "utf8")));
  const sum = (of: keyof Counts) => counts.reduce((total, one) => total + one[of], 0);
  console.log(`${sum("passed")} passed, ${sum("failed")} failed, ${sum("skipped")} skipped`);
  process.exit(missing.length > 0 || sum("failed") > 0 || sum("passed") === 0 ? 1 : 0);
}
