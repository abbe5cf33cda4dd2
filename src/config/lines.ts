/**
 * Where in the configuration file something stands.
 *
 * Only called when something is wrong: the YAML library that keeps positions
 * costs 12 MB of memory, so a good file never loads it.
 */

import type { Document, Node } from "yaml";

type Yaml = typeof import("yaml");

function yaml(): Yaml {
  // Loaded on demand, and synchronously: the caller is about to give up.
  return require("yaml") as Yaml;
}

/** ", line N: what is wrong" for text that is not YAML. */
export function syntaxLine(source: string): string {
  const { LineCounter, parseDocument } = yaml();
  const lines = new LineCounter();
  const [problem] = parseDocument(source, { lineCounter: lines, prettyErrors: false }).errors;
  return problem === undefined
    ? ": it is not YAML"
    : `, line ${lines.linePos(problem.pos[0]).line}: ${problem.message.split("\n")[0]}`;
}

/** A key that stands twice in one mapping, which YAML forbids and parsers forgive. Looks at block style only, which is how people write it. */
export function repeatedField(source: string): { readonly field: string; readonly line: number } | undefined {
  const open: { indent: number; seen: Set<string> }[] = [];
  const rows = source.split("\n");
  for (const [index, row] of rows.entries()) {
    const [, indentText, dash, field] = /^( *)(- )?([A-Za-z][A-Za-z0-9]*):(?: |$)/.exec(row) ?? [];
    if (field === undefined) continue;
    const indent = indentText!.length + (dash?.length ?? 0);
    while (open.length > 0 && open.at(-1)!.indent > indent) open.pop();
    if (open.at(-1)?.indent !== indent) open.push({ indent, seen: new Set() });
    const top = open.at(-1)!;
    if (dash !== undefined) top.seen = new Set();
    if (top.seen.has(field)) return { field, line: index + 1 };
    top.seen.add(field);
  }
  return undefined;
}

/** The line where a field stands; of the nearest enclosing one for what is missing. */
export function lineOf(source: string, keys: readonly (string | number)[]): number {
  const { LineCounter, isMap, isSeq, parseDocument } = yaml();
  const lines = new LineCounter();
  const document: Document = parseDocument(source, { lineCounter: lines });
  let node: unknown = document.contents;
  let offset = (node as Node | null)?.range?.[0] ?? 0;
  for (const key of keys) {
    if (isMap(node)) {
      const pair = node.items.find((item) => (item.key as { value?: unknown }).value === key);
      if (pair === undefined) break;
      offset = (pair.key as Node).range?.[0] ?? offset;
      node = pair.value;
    } else if (isSeq(node)) {
      node = node.items[Number(key)];
      offset = (node as Node | undefined)?.range?.[0] ?? offset;
    }
  }
  return lines.linePos(offset).line;
}
