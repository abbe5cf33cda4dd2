/**
 * Times for programs: beside each number of milliseconds since the epoch, the
 * same moment in ISO 8601 under the name without "Ms".
 *
 * Durations end in "Ms" too, so the moments are known by name.
 */

/** Fields that hold a moment. */
export const MOMENTS: ReadonlySet<string> = new Set([
  ...["startedAtMs", "nowMs", "sinceMs", "lastContactMs", "notAfterMs", "renewAtMs", "endsMs", "atMs", "untilMs"],
  ...["storedAtMs", "lookedAtMs"],
]);

/** The document with ISO times beside its moments; 0 means never, and has none. */
export function withIsoTimes(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(withIsoTimes);
  if (value === null || typeof value !== "object") return value;
  return Object.fromEntries(
    Object.entries(value).flatMap(([name, held]) => {
      const iso = MOMENTS.has(name) && typeof held === "number" && held !== 0 ? isoOf(held) : undefined;
      return [[name, withIsoTimes(held)], ...(iso === undefined ? [] : [[name.slice(0, -2), iso]])];
    }),
  );
}

/** A moment beyond what a date can say has none. */
function isoOf(ms: number): string | undefined {
  const date = new Date(ms);
  return Number.isNaN(date.getTime()) ? undefined : date.toISOString();
}
