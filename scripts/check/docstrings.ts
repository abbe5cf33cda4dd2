/**
 * Every export of src says in a sentence what it is.
 */

import type { Problem, SourceFile } from "./report.ts";

const EXPORT = /^export (?:default )?(?:declare )?(?:abstract )?(?:async )?(?:class|function\*?|const|let|interface|type|enum) +([A-Za-z0-9_]+)/;

/** Finds exports without a docstring directly above. */
export function missingDocstrings(files: readonly SourceFile[]): Problem[] {
  return files.flatMap(({ path, text }) => {
    const lines = text.split("\n");
    return lines.flatMap((line, index) => {
      const name = EXPORT.exec(line)?.[1];
      if (name === undefined || lines[index - 1]?.trimEnd().endsWith("*/") === true) return [];
      return [{ file: path, problem: `export "${name}" has no docstring`, remedy: "say in one sentence above it what it is; then shapes, units, errors" }];
    });
  });
}
