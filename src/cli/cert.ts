/**
 * `holdfast cert`: which certificates there are, when they end, and who renews
 * them; renew one now, or take the local CA back. The running daemon does it.
 */

import * as v from "valibot";
import { formatDuration } from "../base/units.ts";
import type { StatusReport } from "../health/status-report.ts";
import { CERT_FLAGS } from "./flag-table.ts";
import { readFlags, UsageError } from "./flags.ts";
import { placesGiven, reachDaemon, sorry } from "./reach.ts";
import { horizonLines } from "./status.ts";
import { withIsoTimes } from "./times.ts";
import { complain, jsonText, print, short, table } from "./terminal.ts";

/** The signer may take its time. */
const PATIENCE_MS = 20_000;
const NAMES: Readonly<Record<string, readonly string[]>> = {
  status: [],
  rotate: ["node-client", "serving", "local-ca"],
  revoke: ["local-ca", "serving", "node-client"],
};
const MAX_WORDS = 600;
const answerSchema = v.object({ message: v.string() });

/** Shows, rotates or revokes. @returns 0 done, 3 under way, 1 not done. */
export async function command(args: readonly string[]): Promise<number> {
  const { values, positionals } = readFlags(args, CERT_FLAGS);
  const { action, name } = checked(positionals, values.output);
  const again = ["holdfast cert", action, ...(name === undefined ? [] : [name])].join(" ");
  const daemon = await reachDaemon(values, again);
  if (daemon === undefined) return 1;
  if (action !== "status") return act(daemon.path, action, name!, placesGiven(values));
  const { certificates, horizon } = daemon.report;
  print(values.output === "json" ? jsonText(withIsoTimes({ certificates, horizon })) : prose(daemon.report));
  return 0;
}

/** @throws {UsageError} */
function checked(
  [action = "status", name, ...more]: readonly string[],
  output: string | undefined,
): { readonly action: string; readonly name: string | undefined } {
  const names = Object.hasOwn(NAMES, action) ? NAMES[action]! : undefined;
  if (names === undefined) throw new UsageError(`Unknown action '${action}'; expected status, rotate or revoke`);
  if (output !== undefined && (output !== "json" || action !== "status"))
    throw new UsageError(`Unknown output '${output}' for ${action}${action === "status" ? "; expected json" : ""}`);
  const [extra] = names.length === 0 && name !== undefined ? [name] : more;
  if (extra !== undefined) throw new UsageError(`Unexpected argument '${extra}'`);
  if (names.length > 0 && !names.includes(name ?? ""))
    throw new UsageError(
      name === undefined
        ? `Say which: ${action} ${names.join("|")}`
        : `Unknown certificate '${name}'; expected ${names.join(", ")}`,
    );
  return { action, name };
}

async function act(path: string, action: string, name: string, given: string): Promise<number> {
  let response: Response;
  let document: unknown;
  try {
    response = await fetch(`http://holdfast/v1/certificates/${action}/${name}`, {
      method: "POST",
      unix: path,
      signal: AbortSignal.timeout(PATIENCE_MS),
    } as RequestInit);
    document = await response.json();
  } catch {
    return sorry("holdfast cert", {
      problem: `the daemon on ${path} has not answered`,
      next: `See: journalctl -u holdfast -n 50, and holdfast cert status${given}`,
    });
  }
  const read = v.safeParse(answerSchema, document);
  if (!read.success)
    return sorry("holdfast cert", {
      problem: `the daemon on ${path} does not know this command`,
      next: "Restart it if its binary was replaced",
    });
  const words = short(read.output.message, MAX_WORDS);
  if (response.ok) print(words);
  else complain(`holdfast cert: ${words}`);
  return response.status === 200 ? 0 : response.status === 202 ? 3 : 1;
}

function prose(report: StatusReport): string {
  const { certificates, nowMs } = report;
  const inTime = (ms: number | undefined) =>
    ms === undefined ? "" : ms < nowMs ? `${formatDuration(nowMs - ms)} ago` : `in ${formatDuration(ms - nowMs)}`;
  const rows = certificates.map(({ name, subject, notAfterMs, renewAtMs, renewedBy = "" }) => [
    name === "upstream" ? "node-client" : name,
    subject,
    inTime(notAfterMs),
    inTime(renewAtMs),
    renewedBy,
  ]);
  return [table(["CERTIFICATE", "SUBJECT", "ENDS", "RENEWED", "BY"], rows), horizonLines(report)].join("\n\n");
}
