/**
 * `holdfast netcheck`; see check.ts.
 */

import { netcheck } from "./check.ts";

/** Checks the way to the API servers. */
export const command = netcheck;
