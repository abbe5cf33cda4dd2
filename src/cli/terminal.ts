/**
 * What is printed, and how it gets there whole.
 *
 * What others have named (selectors, callers, an API server's words) is cut to
 * a bound and freed of control characters before it reaches a terminal: a
 * selector may be a hundred thousand letters long, or move the cursor.
 */

import { writeSync } from "node:fs";
import { cutText } from "../base/units.ts";

/** The widest cell of a table. */
const MAX_CELL = 100;
/** The longest text in JSON that people read. */
const MAX_TEXT = 1_024;

/** Writes a line to standard output. */
export function print(text: string): void {
  writeOut(`${text}\n`);
}

/** Writes to standard output as it is. */
export function writeOut(content: string | Uint8Array): void {
  writeAll(1, content);
}

/** Writes a line to standard error. */
export function complain(text: string): void {
  writeAll(2, `${text}\n`);
}

/**
 * Writes all of it before it returns.
 *
 * `process.stdout.write` hands a pipe 64 KB and keeps the rest for later, and
 * `process.exit` does not wait for later: a longer answer piped into another
 * program would arrive cut short, with exit code 0.
 */
function writeAll(fd: number, content: string | Uint8Array): void {
  let rest = Buffer.from(content);
  while (rest.length > 0) {
    try {
      rest = rest.subarray(writeSync(fd, rest));
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      // Whoever read has had enough, as `head` has: 128 + SIGPIPE, like any program in a pipeline.
      if (code === "EPIPE") process.exit(141);
      if (code !== "EAGAIN") throw error;
      Bun.sleepSync(5);
    }
  }
}

/** A text for one line of a terminal: no control characters, at most so many letters, the cut marked. */
export function short(text: string, most = MAX_CELL): string {
  return cutText(text, most).replaceAll(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu, "?");
}

/** No column is made narrower than this to fit. */
const MIN_COLUMN = 4;

/** A table with aligned columns. @param width of the terminal: the widest columns give way, cuts are marked. */
export function table(head: readonly string[], rows: readonly (readonly string[])[], width = Infinity): string {
  const cells = [head, ...rows.map((row) => row.map((cell) => short(cell)))];
  const widths = head.map((_, column) => Math.max(...cells.map((row) => row[column]?.length ?? 0)));
  const total = () => widths.reduce((sum, one) => sum + one + 2, -2);
  while (total() > width) {
    const widest = widths.indexOf(Math.max(...widths));
    if (widths[widest]! <= MIN_COLUMN) break;
    widths[widest]!--;
  }
  return cells
    .map((row) =>
      row
        .map((cell, column) => cutText(cell, widths[column]!).padEnd(widths[column]!))
        .join("  ")
        .trimEnd(),
    )
    .join("\n");
}

/** A line broken between words so that none is wider than the terminal; what follows is set in. */
export function wrapped(line: string, width: number): string {
  const lines: string[] = [];
  let rest = line;
  const indent = `${/^ */.exec(line)![0]}  `;
  while (rest.length > width) {
    const at = rest.lastIndexOf(" ", width);
    const end = at > indent.length ? at : width;
    lines.push(rest.slice(0, end));
    rest = indent + rest.slice(end).trimStart();
  }
  return [...lines, rest].join("\n");
}

/** JSON for people and programs; no text in it is longer than its bound. */
export function jsonText(document: unknown): string {
  return JSON.stringify(
    document,
    (_, value: unknown) => (typeof value === "string" ? cutText(value, MAX_TEXT) : value),
    2,
  );
}
