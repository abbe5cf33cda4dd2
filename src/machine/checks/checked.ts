/**
 * What a check finds: a name that stays, how bad it is, why, and the next command.
 */

/** "skipped": it could not be looked at here, and says why. */
export type Level = "ok" | "warning" | "failed" | "skipped";

/** One check's result. */
export interface Checked {
  /** GROUP/NAME; a contract for scripts. */
  readonly id: string;
  readonly level: Level;
  /** How it stands, for people. */
  readonly cause: string;
  /** The next command or step; "" where there is nothing to do. */
  readonly next: string;
}

/** It holds. */
export function ok(id: string, cause: string): Checked {
  return { id, level: "ok", cause, next: "" };
}

/** The node works, and something of the promise is missing. */
export function warning(id: string, cause: string, next: string): Checked {
  return { id, level: "warning", cause, next };
}

/** It must be mended. */
export function failed(id: string, cause: string, next: string): Checked {
  return { id, level: "failed", cause, next };
}

/** It could not be looked at. */
export function skipped(id: string, cause: string): Checked {
  return { id, level: "skipped", cause, next: "" };
}

/** 0 all well, 1 something failed, 3 something is to be looked at. */
export function exitCodeOf(checks: readonly Checked[]): 0 | 1 | 3 {
  if (checks.some(({ level }) => level === "failed")) return 1;
  return checks.some(({ level }) => level === "warning") ? 3 : 0;
}
