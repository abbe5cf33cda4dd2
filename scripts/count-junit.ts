/**
 * Sums up JUnit reports: "N passed, N failed, N skipped".
 *
 *   bun scripts/count-junit.ts REPORT.xml ...
 *
 * Exits 1 when a report is missing, cut short or empty, when its own sums
 * differ from its cases, when nothing passed, or when anything failed. The sum
 * is printed all the same, as the last line of standard output.
 */

import { existsSync, readFileSync } from "node:fs";

/** What the runner counted. */
export interface Counts {
  readonly passed: number;
  readonly failed: number;
  readonly skipped: number;
}

/** What several reports come to. */
export interface Verdict extends Counts {
  /** Why the sum cannot be believed, or is not good. */
  readonly complaints: readonly string[];
}

const CASE = /<testcase\b(?:[^>"]|"[^"]*")*?(?:\/>|>([\s\S]*?)<\/testcase>)/g;

/** Counts the test cases of one report. */
export function countReport(xml: string): Counts {
  let [passed, failed, skipped] = [0, 0, 0];
  for (const [, body = ""] of xml.matchAll(CASE)) {
    if (/<(failure|error)\b/.test(body)) failed++;
    else if (/<skipped\b/.test(body)) skipped++;
    else passed++;
  }
  return { passed, failed, skipped };
}

/** Sums up reports; a report that could not be read is undefined. */
export function judge(reports: readonly { readonly path: string; readonly xml: string | undefined }[]): Verdict {
  const counts = reports.map(({ xml }) => countReport(xml ?? ""));
  const sum = (of: keyof Counts) => counts.reduce((total, one) => total + one[of], 0);
  const complaints = reports.flatMap(({ path, xml }, index) => complaintsAbout(path, xml, counts[index]!));
  if (sum("passed") === 0) complaints.push("no test passed");
  if (sum("failed") > 0) complaints.push(`${sum("failed")} failed`);
  return { passed: sum("passed"), failed: sum("failed"), skipped: sum("skipped"), complaints };
}

function complaintsAbout(path: string, xml: string | undefined, { passed, failed, skipped }: Counts): string[] {
  if (xml === undefined) return [`${path}: report missing`];
  if (!xml.trimEnd().endsWith("</testsuites>")) return [`${path}: report cut short`];
  const found = passed + failed + skipped;
  if (found === 0) return [`${path}: no test ran`];
  // The runner's own sum: a case that this reading missed would show here.
  const [, head = ""] = /<testsuites\b([^>]*)>/.exec(xml) ?? [];
  const said = Number(/\btests="(\d+)"/.exec(head)?.[1] ?? found);
  return said === found ? [] : [`${path}: ${found} cases, but the runner counted ${said}`];
}

if (import.meta.main) {
  const paths = process.argv.slice(2);
  const read = (path: string) => (existsSync(path) ? readFileSync(path, "utf8") : undefined);
  const { passed, failed, skipped, complaints } = judge(paths.map((path) => ({ path, xml: read(path) })));
  for (const complaint of complaints) console.error(`count-junit: ${complaint}`);
  console.log(`${passed} passed, ${failed} failed, ${skipped} skipped`);
  process.exit(complaints.length === 0 ? 0 : 1);
}
