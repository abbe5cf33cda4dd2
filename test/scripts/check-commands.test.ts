import { afterAll, describe, expect, test } from "bun:test";
import { cpSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { commandChecks, complaintOf } from "../../scripts/check/commands.ts";
import { projectRoot } from "../../scripts/setup.ts";

const folder = mkdtempSync(join(tmpdir(), "holdfast-check-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** A tree with this project's rules and one file. */
function treeWith(text: string): string {
  const root = mkdtempSync(join(folder, "tree-"));
  for (const name of [".oxlintrc.json", "bunfig.toml", "package.json", "tsconfig.json"]) {
    cpSync(join(projectRoot, name), join(root, name));
  }
  symlinkSync(join(projectRoot, "node_modules"), join(root, "node_modules"));
  mkdirSync(join(root, "src"));
  writeFileSync(join(root, "src", "planted.ts"), text);
  return root;
}

/** The checks that complain, each with the file it names. */
function complaints(text: string): string[] {
  const root = treeWith(text);
  const found = commandChecks(root).map((check) => ({ name: check.name, said: complaintOf(check, root) }));
  return found.flatMap(({ name, said }) => (said === undefined ? [] : [`${name}: ${/src\/\w+\.ts/.exec(said)?.[0]}`]));
}

describe("the checks of other programs", () => {
  test.each([
    ["nothing in a clean file", "export const a = 1;\n", []],
    ["an unformatted file", "export   const a = 1\n", ["format: src/planted.ts"]],
    ["a forgotten debugger", "export function a(): void {\n  debugger;\n}\n", ["lint: src/planted.ts"]],
    ["console in the node's code", "console.log(1);\n", ["lint: src/planted.ts"]],
    ["a line of 130", `export const a = ["${"a".repeat(60)}", "${"b".repeat(60)}"];\n`, ["format: src/planted.ts"]],
    ["another HTTP client", 'import get from "undici";\n\nget();\n', ["lint: src/planted.ts", "types: src/planted.ts"]],
    ["loose equality", "export const a = (b: unknown): boolean => b == 1;\n", ["lint: src/planted.ts"]],
    ["a wrong type", 'export const a: number = "x";\n', ["types: src/planted.ts"]],
    ["an unchecked index", "export const a = (b: string[]): string => b[0];\n", ["types: src/planted.ts"]],
  ])("find %s", (_name, text, expected) => {
    expect(complaints(text)).toEqual(expected);
  });
});
