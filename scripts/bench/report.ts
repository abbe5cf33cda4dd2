/**
 * How the bench says what it has measured: one row a figure, with its limit and the verdict.
 */

import { besideText, type Measured } from "./machine.ts";

/** A row's limit in the default and in the small profile. */
export type Limits = readonly [byDefault: number, small: number];

const isSmall = process.env["HOLDFAST_PROFILE"] === "small";

/** The middle one. */
export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)] ?? Number.NaN;
}

/** A figure against its limit. @param measured with what else ran on the machine, where that was looked at. */
export function row(
  what: string,
  limits: number | Limits,
  measured: number | Measured<number>,
  unit = "",
  isAtLeast = false,
): void {
  const limit = typeof limits === "number" ? limits : limits[isSmall ? 1 : 0];
  const value = typeof measured === "number" ? measured : measured.value;
  const holds = isAtLeast ? value >= limit : value <= limit;
  const beside = typeof measured === "number" ? "" : besideText(measured);
  print(
    what,
    `${unit}${limit}`,
    `${unit}${value < 10 ? value.toFixed(2) : value.toFixed(0)}`,
    holds ? "ok" : "MISSED",
    beside,
  );
}

/** A line of its own below a row. */
export function note(text: string): void {
  console.log(`    ${text}`);
}

/** One line of the table. */
export function print(what: string, limit: string, measured: string, verdict: string, beside = ""): void {
  console.log(
    `${what.padEnd(66)} ${limit.padStart(8)} ${measured.padStart(9)}  ${verdict.padEnd(6)} ${beside}`.trimEnd(),
  );
}
