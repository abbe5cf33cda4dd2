/** Every test that docs/faults.md names is there, and what has none says since when and why; every attack's control stands where its table says. */

import { expect, test } from "bun:test";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { CONTROLS, lostControls } from "../attack/controls.ts";

const root = join(import.meta.dir, "../..");
const rows = readFileSync(join(root, "docs/faults.md"), "utf8")
  .split("\n")
  .filter((line) => /^\| \d/.test(line))
  .map((line) => line.split(" | ").map((cell) => cell.replace(/^\| | \|$/g, "")));

/** What is wrong with a row's last cell. */
function fault(cell: string): string | undefined {
  if (/^\d{4}-\d\d-\d\d: .{8,}/.test(cell)) return undefined;
  return cell
    .split("; ")
    .map(faultOfTest)
    .find((found) => found !== undefined);
}

/** What is wrong with one test's name. */
function faultOfTest(name: string): string | undefined {
  const named = /^`(test\/[^`]+\.test\.ts)`(?:: "(.+)")?(?: \(`--long`\))?$/.exec(name);
  if (named === null) return "neither a test nor a dated reason";
  const [, file = "", title = ""] = named;
  if (!existsSync(join(root, file))) return `${file} is not there`;
  return readFileSync(join(root, file), "utf8").includes(title) ? undefined : `${file} has no "${title}"`;
}

test("the table has all sixty, in order", () => {
  expect(rows.map(([number]) => Number(number))).toEqual(Array.from({ length: 60 }, (_, n) => n + 1));
});

test("each names a test that is there, or a dated reason", () => {
  expect(
    rows.flatMap(([number, , cell = ""]) => (fault(cell) === undefined ? [] : [`${number}: ${fault(cell)}`])),
  ).toEqual([]);
});

test("a name that is misspelt, a file that has gone and an empty reason are found", () => {
  expect(fault('`test/scripts/check.test.ts`: "no such title"')).toContain("has no");
  expect(fault("`test/nowhere.test.ts`")).toContain("is not there");
  expect(fault("2026-11-30: no")).toContain("neither");
});

test("each attack's control stands in src, and its test in test/attack", () => {
  expect(lostControls()).toEqual([]);
  for (const { file, title } of CONTROLS)
    expect(readFileSync(join(root, "test/attack", `${file}.test.ts`), "utf8")).toContain(title);
});
