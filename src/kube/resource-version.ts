/**
 * Order among resourceVersions.
 *
 * They are decimal integers without leading zeros (KEP-5504, GA in 1.35), up
 * to 2^128, so neither a number nor an equality test will do: the longer one
 * is the larger, and equals in length compare as text.
 */

/** Whether the text is a resourceVersion that can be ordered: decimal, no leading zero, at most 39 digits. "0" is not one. */
export function isResourceVersion(text: string): boolean {
  return /^[1-9][0-9]{0,38}$/.test(text);
}

/**
 * Orders two resourceVersions; "" counts as older than all.
 *
 * @returns below zero, zero or above zero, as `a` is older than, equal to or newer than `b`.
 */
export function compareResourceVersions(a: string, b: string): number {
  if (a.length !== b.length) return a.length - b.length;
  return a < b ? -1 : a > b ? 1 : 0;
}

/** The newer of two resourceVersions. */
export function newerResourceVersion(a: string, b: string): string {
  return compareResourceVersions(a, b) >= 0 ? a : b;
}
