/**
 * What is said when a configuration cannot be used.
 */

import { EdgeError } from "../base/errors.ts";

/** A configuration cannot be used; the message names file, line and field, or the flag. */
export class ConfigError extends EdgeError {
  override readonly name = "ConfigError";
  readonly code = "CONFIG";
}

/** Why a file cannot be read, with the next step. */
export function whyUnreadable(error: unknown): string {
  const { code } = error as { code?: string };
  if (code === "ENOENT") return "there is no such file";
  if (code === "EACCES") return "this user may not read it; run as root";
  return String(code);
}
