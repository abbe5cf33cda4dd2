/**
 * `holdfast demo`: the guided tour; its parts are loaded only here.
 */

import { DEMO_FLAGS } from "./flag-table.ts";
import { readFlags, UsageError } from "./flags.ts";

/** Runs the tour. @returns 0 when every step held. */
export async function command(args: readonly string[]): Promise<number> {
  const { values, positionals } = readFlags(args, DEMO_FLAGS);
  if (positionals.length > 0) throw new UsageError(`Unexpected argument '${positionals[0]}'`);
  const { runTour } = await import("../demo/tour.ts");
  return runTour({ keep: values.keep === true });
}
