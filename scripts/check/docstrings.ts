/**
 * Every export of src says in a sentence what it is.
 *
 * A scan of the text, not of a syntax tree: TypeScript 7 is a native program
 * without an API, and the formatter keeps exports at the start of a line.
 */

import type { Problem, SourceFile } from "./report.ts";

const DECLARATION =
  /^export (?:default )?(?:declare )?(?:abstract )?(?:async )?(?:class|function\*?|const(?: enum)?|let|interface|type|enum|namespace) *([A-Za-z0-9_$]+)/;
const OTHER_DEFAULT = /^export default /;
const REMEDY = "say in one sentence above it what it is; then shapes, units, errors";

/** Finds exports without a docstring directly above; decorators and line comments may stand between. */
export function missingDocstrings(files: readonly SourceFile[]): Problem[] {
  return files.flatMap(({ path, text }) => {
    const lines = text.split("\n");
    return lines.flatMap((line, index) => {
      const name = exportedName(line);
      if (name === undefined || isOverload(lines, index, name) || hasDocstring(lines, index)) return [];
      return [{ file: path, problem: `export "${name}" has no docstring`, remedy: REMEDY }];
    });
  });
}

function exportedName(line: string): string | undefined {
  return DECLARATION.exec(line)?.[1] ?? (OTHER_DEFAULT.test(line) ? "default" : undefined);
}

/** Whether a signature of the same function stands above: one docstring serves them all. */
function isOverload(lines: readonly string[], index: number, name: string): boolean {
  const isSignature = (line: string) => line.startsWith("export ") && line.includes("function") && line.endsWith(";");
  return lines.slice(0, index).some((line) => isSignature(line) && exportedName(line) === name);
}

function hasDocstring(lines: readonly string[], index: number): boolean {
  let at = index - 1;
  while (at >= 0 && /^(?:\/\/|@)/.test(lines[at]!)) at--;
  if (at < 0 || !lines[at]!.endsWith("*/")) return false;
  while (at >= 0 && !lines[at]!.startsWith("/*")) at--;
  return lines[at]?.startsWith("/**") === true;
}
