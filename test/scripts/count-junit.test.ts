import { describe, expect, test } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { countReport, judge } from "../../scripts/count-junit.ts";

const script = join(import.meta.dir, "..", "..", "scripts", "count-junit.ts");
const suites = (cases: string, tests: number) =>
  `<?xml version="1.0"?>\n<testsuites name="bun test" tests="${tests}"><testsuite>${cases}</testsuite></testsuites>\n`;
const PASSED = '<testcase name="a &gt; b" time="0" />';
const FAILED = '<testcase name="c"><failure type="AssertionError" /></testcase>';
const BROKEN = '<testcase name="d">\n<error message="boom"/>\n</testcase>';
const SKIPPED = '<testcase name="e"><skipped /></testcase>';
const SILENT = '<testcase name="f"></testcase>';

test("a report is counted case by case, as the runner wrote it", () => {
  const xml = suites(PASSED + FAILED + BROKEN + SKIPPED + SILENT, 5);
  expect(countReport(xml)).toEqual({ passed: 2, failed: 2, skipped: 1 });
});

describe("a sum is not believed when", () => {
  const whole = { path: "whole.xml", xml: suites(PASSED, 1) };
  test.each([
    ["a report is missing", undefined, "lab.xml: report missing"],
    ["a report was cut short", suites(PASSED, 1).slice(0, -20), "lab.xml: report cut short"],
    ["a report holds no test", suites("", 0), "lab.xml: no test ran"],
    ["the runner counted others", suites(PASSED, 2), "lab.xml: 1 cases, but the runner counted 2"],
    ["something failed", suites(FAILED, 1), "1 failed"],
  ])("%s", (_situation, xml, complaint) => {
    expect(judge([whole, { path: "lab.xml", xml }]).complaints).toEqual([complaint]);
    expect(judge([whole]).complaints).toEqual([]);
  });

  test("everything was skipped", () => {
    expect(judge([{ path: "a.xml", xml: suites(SKIPPED, 1) }]).complaints).toEqual(["no test passed"]);
  });
});

test("one report of skips beside one that passed is fine: a machine without the lab's needs", () => {
  const verdict = judge([
    { path: "test.xml", xml: suites(PASSED, 1) },
    { path: "lab.xml", xml: suites(SKIPPED, 1) },
  ]);
  expect(verdict).toEqual({ passed: 1, failed: 0, skipped: 1, complaints: [] });
});

test("the runner's real report has as many cases as it says, of every kind", () => {
  const folder = mkdtempSync(join(tmpdir(), "holdfast-junit-"));
  const file = join(folder, "kinds.test.ts");
  const report = join(folder, "report.xml");
  writeFileSync(
    file,
    `import { describe, expect, test } from "bun:test";
     describe("x </testcase> <failure> \\"", () => { test("passes", () => {}); });
     test("fails", () => expect("<skipped>").toBe("</testcase>"));
     test.skip("is skipped", () => {});
     test.todo("is to do");
     test.each([1, 2])("row %d", () => {});`,
  );
  Bun.spawnSync([process.execPath, "test", "--reporter=junit", `--reporter-outfile=${report}`, "./kinds.test.ts"], {
    cwd: folder,
  });
  const counted = Bun.spawnSync([process.execPath, script, report]);
  rmSync(folder, { recursive: true });
  expect(counted.stdout.toString()).toBe("3 passed, 1 failed, 2 skipped\n");
  expect(counted.stderr.toString()).toBe("count-junit: 1 failed\n");
  expect(counted.exitCode).toBe(1);
});
