/**
 * Waiting for a machine.
 */

import { EdgeError } from "../base/errors.ts";
import { reasonOf } from "../uplink/upstream.ts";
import type { Machine } from "./machine.ts";

/** It was waited in vain. */
export class InVainError extends EdgeError {
  override readonly name = "InVainError";
  readonly code = "IN_VAIN";
}

/** What went wrong, in our own words or by the system's code. */
export function wordsOf(error: unknown): string {
  return error instanceof EdgeError ? error.message : reasonOf(error);
}

const LOOK_EVERY_MS = 500;

/** Looks until nothing is missing. @throws {InVainError} with the last word of what was. */
export async function until(
  machine: Machine,
  patienceMs: number,
  missing: () => Promise<string | undefined>,
): Promise<void> {
  const deadline = machine.nowMs() + patienceMs;
  for (;;) {
    const word = await missing().catch((error: unknown) => wordsOf(error));
    if (word === undefined) return;
    if (machine.nowMs() >= deadline) throw new InVainError(`${word}, ${patienceMs / 1_000} s long`);
    await machine.wait(LOOK_EVERY_MS);
  }
}
