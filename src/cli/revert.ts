/**
 * `holdfast revert`: stands beside `adopt`, whose steps it takes back.
 */

import { takeBack } from "./adopt.ts";

/** Takes this node back. */
export async function command(args: readonly string[]): Promise<number> {
  return takeBack(args);
}
