/**
 * Asking a running daemon how it is, with words for whatever is in the way.
 */

import { lstatSync } from "node:fs";
import * as v from "valibot";
import { statusReportSchema, type StatusReport } from "../health/status-report.ts";

/** A daemon that hangs must not hang who asks it. */
const PATIENCE_MS = 5_000;

/** What came of asking: a report with the document it was read from, or what is in the way and the step to take. */
export type StatusAnswer =
  | { readonly isFine: true; readonly report: StatusReport; readonly document: unknown }
  | { readonly isFine: false; readonly problem: string; readonly next: string };

/** Asks the daemon on a socket. @param given the flags that led there, to be repeated in hints. @param again the command to be tried again. */
export async function askStatus(path: string, given = "", again = "holdfast status"): Promise<StatusAnswer> {
  let response: Response;
  try {
    lstatSync(path);
    response = await fetch("http://holdfast/v1/status", {
      unix: path,
      signal: AbortSignal.timeout(PATIENCE_MS),
    } as RequestInit);
    if (!response.ok)
      return {
        isFine: false,
        problem: `the daemon on ${path} cannot say how it is (${response.status})`,
        next: "See: journalctl -u holdfast -n 50",
      };
  } catch (error) {
    const { code, name } = error as { code?: string; name?: string };
    if (code === "EACCES" || code === "EPERM")
      return { isFine: false, problem: `this user may not open ${path}`, next: `Try: sudo ${again}${given}` };
    if (name === "TimeoutError")
      return {
        isFine: false,
        problem: `the daemon on ${path} does not answer within ${PATIENCE_MS / 1_000} s`,
        next: "See: journalctl -u holdfast -n 50",
      };
    return {
      isFine: false,
      problem: `no daemon answers on ${path}`,
      next:
        given === ""
          ? "Try: systemctl status holdfast, or name the folder with --state-dir DIR"
          : `Try: systemctl status holdfast, or give other flags than${given}`,
    };
  }
  const document: unknown = await response.json().catch(() => undefined);
  const result = v.safeParse(statusReportSchema, document);
  if (result.success) return { isFine: true, report: result.output, document };
  return {
    isFine: false,
    problem: `the daemon on ${path} answers in a form that this version does not know (${v.getDotPath(result.issues[0]) ?? "document"})`,
    next: "See: holdfast version, and restart the daemon if its binary was replaced",
  };
}
