/**
 * Finding the running daemon and hearing how it is: once, for every command that asks it.
 *
 * What is in the way is said here, in the same words for all, with the command
 * as it was given to be tried again.
 */

import { ConfigError } from "../config/config-error.ts";
import { loadPlaces } from "../config/places.ts";
import type { StatusReport } from "../health/status-report.ts";
import { askStatus } from "./ask-status.ts";
import { repeated } from "./flags.ts";
import { complain } from "./terminal.ts";

/** The flags that say where the daemon is. */
export interface PlaceFlags {
  readonly "state-dir"?: string | undefined;
  readonly "admin-socket"?: string | undefined;
  readonly config?: string | undefined;
}

/** A daemon that has answered. */
export interface Reached {
  /** Its admin socket. */
  readonly path: string;
  readonly report: StatusReport;
  /** What the report was read from: a newer daemon may say more. */
  readonly document: unknown;
}

/** What is in the way, and the step to take. */
export interface Obstacle {
  readonly problem: string;
  readonly next: string;
}

/** Only the flags that say where, as they were given: " --state-dir /tmp/x"; "" for none. */
export function placesGiven({ "state-dir": stateDir, "admin-socket": adminSocket, config }: PlaceFlags): string {
  return repeated({ "state-dir": stateDir, "admin-socket": adminSocket, config });
}

/** Looks for the daemon and asks it. @param again the command line to be tried again, without those flags: "holdfast status". */
export async function findDaemon(flags: PlaceFlags, again: string): Promise<Reached | Obstacle> {
  const { "state-dir": stateDir, "admin-socket": adminSocket, config } = flags;
  let path: string | undefined;
  try {
    path = loadPlaces({ stateDir, config, adminSocket }, process.env).adminSocketPath;
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    return { problem: error.message, next: "Name the socket with --admin-socket PATH" };
  }
  if (path === undefined)
    return {
      problem: "the admin socket's path is too long, and so it is not open",
      next: "Choose adminSocket in the configuration, and restart the daemon",
    };
  const answer = await askStatus(path, placesGiven(flags), again);
  return answer.isFine ? { path, report: answer.report, document: answer.document } : answer;
}

/** As `findDaemon`; what is in the way is complained of. @returns undefined when it was: the exit code is 1. */
export async function reachDaemon(flags: PlaceFlags, again: string): Promise<Reached | undefined> {
  const found = await findDaemon(flags, again);
  if (!("problem" in found)) return found;
  const [program, name] = again.split(" ");
  sorry(`${program} ${name}`, found);
  return undefined;
}

/** Says what is in the way. @returns 1. */
export function sorry(who: string, { problem, next }: Obstacle): 1 {
  complain(`${who}: ${problem}`);
  complain(next);
  return 1;
}
