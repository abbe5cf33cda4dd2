/**
 * `holdfast status`: the first line answers "can I walk away?".
 *
 * Everything below it is for whoever cannot: what the link does, what is kept,
 * for whom, and which condition to mend first.
 */

import { lstatSync } from "node:fs";
import * as v from "valibot";
import { formatDuration, formatSize } from "../base/units.ts";
import { ConfigError } from "../config/config-error.ts";
import { loadPlaces } from "../config/places.ts";
import { statusReportSchema, type StatusReport } from "../health/status-report.ts";
import { UsageError, complain, print, readFlags, table } from "./command.ts";

/** A daemon that hangs must not hang who asks it. */
const PATIENCE_MS = 5_000;
const DAY_MS = 86_400_000;

/** Prints where things stand. @returns 0 online, 3 offline or with conditions, 1 not running. */
export async function command(args: readonly string[]): Promise<number> {
  const { values, positionals } = readFlags(args, {
    output: { type: "string", short: "o" },
    "state-dir": { type: "string" },
    config: { type: "string" },
    "admin-socket": { type: "string" },
  });
  if (positionals.length > 0) throw new UsageError(`Unexpected argument '${positionals[0]}'`);
  if (values.output !== undefined && values.output !== "json")
    throw new UsageError(`Unknown output '${values.output}'; expected json`);
  let path: string | undefined;
  try {
    path = loadPlaces(
      { stateDir: values["state-dir"], config: values.config, adminSocket: values["admin-socket"] },
      process.env,
    ).adminSocketPath;
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    return sorry(error.message, "Name the socket with --admin-socket PATH");
  }
  if (path === undefined)
    return sorry(
      "the admin socket's path is too long, and so it is not open",
      "Choose adminSocket in the configuration, and restart the daemon",
    );
  const answer = await askStatus(path);
  if (!answer.isFine) return sorry(answer.problem, answer.next);
  print(values.output === "json" ? JSON.stringify(answer.document, undefined, 2) : prose(answer.report));
  return answer.report.link.state === "online" && answer.report.conditions.length === 0 ? 0 : 3;
}

function sorry(problem: string, next: string): number {
  complain(`holdfast status: ${problem}`);
  complain(next);
  return 1;
}

/** What came of asking: a report with the document it was read from, or what is in the way and the step to take. */
export type StatusAnswer =
  | { readonly isFine: true; readonly report: StatusReport; readonly document: unknown }
  | { readonly isFine: false; readonly problem: string; readonly next: string };

/** Asks the daemon on a socket. */
export async function askStatus(path: string): Promise<StatusAnswer> {
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
      return { isFine: false, problem: `this user may not open ${path}`, next: "Try: sudo holdfast status" };
    if (name === "TimeoutError")
      return {
        isFine: false,
        problem: `the daemon on ${path} does not answer within ${PATIENCE_MS / 1_000} s`,
        next: "See: journalctl -u holdfast -n 50",
      };
    return {
      isFine: false,
      problem: `no daemon answers on ${path}`,
      next: "Try: systemctl status holdfast, or name the folder with --state-dir DIR",
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

/** The report for people. */
export function prose(report: StatusReport): string {
  const { link, scopes, store, conditions, nowMs } = report;
  const ago = (ms: number | undefined) =>
    ms === undefined || ms === 0 ? "never" : `${formatDuration(nowMs - ms)} ago`;
  const blocks = [
    firstLine(report),
    conditions.length === 0
      ? ""
      : table(
          ["CONDITION", "REASON", "SINCE", "MESSAGE"],
          conditions.map(({ type, reason, message, sinceMs, next = "" }) => [
            type,
            reason,
            sinceMs === undefined ? "" : ago(sinceMs),
            next === "" ? message : `${message}. ${next}`,
          ]),
        ),
    table(
      ["API SERVER", "RTT", "LAST CONTACT", "LAST ERROR"],
      link.servers.map(({ url, rttMs, lastContactMs, lastError }) => [
        url,
        rttMs === undefined ? "" : `${Math.round(rttMs)} ms`,
        ago(lastContactMs),
        lastError ?? "",
      ]),
    ),
    scopes.length === 0
      ? "Nothing has been asked for yet."
      : table(
          ["RESOURCE", "NAMESPACE", "CALLER", "STATE", "ITEMS", "SIZE", "WATCHES", "LAST CONTACT"],
          scopes.map((scope) => [
            nameOf(scope),
            scope.namespace || "(all)",
            shortPrincipal(scope.principal),
            scope.note === "" ? `${scope.state}${scope.sharesWatchOf === undefined ? "" : ", shared"}` : scope.note,
            String(scope.items),
            formatSize(scope.bytes),
            String(scope.watchers),
            ago(scope.lastContactMs),
          ]),
        ),
    sharingLine(report),
    offlineLine(report),
    clientsTable(report),
    table(
      ["CERTIFICATE", "SUBJECT", "ENDS"],
      report.certificates.map(({ name, subject, notAfterMs }) => [
        name,
        subject,
        notAfterMs < nowMs ? `EXPIRED ${ago(notAfterMs)}` : `in ${Math.floor((notAfterMs - nowMs) / DAY_MS)} days`,
      ]),
    ),
    `Store: ${store.mode === "disk" ? store.path : `IN MEMORY (${store.reason})`}, ${formatSize(store.sizeBytes)}, ${store.objects} objects, ${store.responses} answers, ${store.quarantined} damaged, sealing key from ${store.sealing}`,
  ];
  return blocks.filter((block) => block !== "").join("\n\n");
}

function firstLine({ link, scopes, certificates, requests, conditions, nowMs }: StatusReport): string {
  const kept = scopes.filter(({ resourceVersion }) => resourceVersion !== "").length;
  const live = scopes.filter(({ state }) => state === "live").length;
  const upstream = certificates.find(({ name }) => name === "upstream");
  const days = upstream === undefined ? undefined : Math.floor((upstream.notAfterMs - nowMs) / DAY_MS);
  return [
    `${link.state.toUpperCase()} ${formatDuration(nowMs - link.sinceMs)}`,
    link.state === "online" ? `${counted(live, "scope")} live` : `serving ${counted(kept, "scope")} from cache`,
    ...(days === undefined
      ? []
      : [days < 0 ? "client certificate EXPIRED" : `client certificate covers ${counted(days, "day")} more`]),
    ...(requests.refusedWrites === 0 ? [] : [`${counted(requests.refusedWrites, "write")} refused`]),
    ...(conditions.length === 0 ? [] : [`${counted(conditions.length, "condition")} to look at`]),
  ].join(" · ");
}

/** What did not have to come over the uplink. */
function sharingLine({ scopes, sharedBytes }: StatusReport): string {
  if (sharedBytes === undefined || sharedBytes === 0) return "";
  const shared = scopes.filter(({ sharesWatchOf }) => sharesWatchOf !== undefined).length;
  return `Sharing: ${counted(shared, "scope")} fed by another caller's watch, ${formatSize(sharedBytes)} of lists and events since start not asked of the API server`;
}

/** What is answered here for the cloud, until it can be asked. */
function offlineLine({ offline }: StatusReport): string {
  if (offline === undefined) return "";
  const { overlays, eventsWaiting, expiredTokensServed } = offline;
  const parts = [
    overlays === 0 ? "" : `${counted(overlays, "status", "statuses")} of node and pods laid over the copy`,
    eventsWaiting === 0 ? "" : `${counted(eventsWaiting, "event")} waiting for the link`,
    expiredTokensServed === 0 ? "" : `${counted(expiredTokensServed, "expired service-account token")} handed out`,
  ].filter((part) => part !== "");
  return parts.length === 0 ? "" : `Offline: ${parts.join(", ")}`;
}

/** Who asks, and how much is kept for them. */
function clientsTable({ scopes }: StatusReport): string {
  const clients = new Map<string, { scopes: number; watchers: number }>();
  for (const { principal, watchers } of scopes) {
    const client = clients.get(principal) ?? { scopes: 0, watchers: 0 };
    clients.set(principal, { scopes: client.scopes + 1, watchers: client.watchers + watchers });
  }
  if (clients.size === 0) return "";
  return table(
    ["CLIENT", "SCOPES", "WATCHES"],
    [...clients].map(([principal, client]) => [
      shortPrincipal(principal),
      String(client.scopes),
      String(client.watchers),
    ]),
  );
}

function counted(count: number, noun: string, plural = `${noun}s`): string {
  return `${count} ${count === 1 ? noun : plural}`;
}

function nameOf({ resource, group, fieldSelector, labelSelector }: StatusReport["scopes"][number]): string {
  const selectors = [fieldSelector, labelSelector].filter((text) => text !== "").join(" ");
  return `${resource}${group === "" ? "" : `.${group}`}${selectors === "" ? "" : ` (${selectors})`}`;
}

/** "certificate:admin|system:masters" as "admin"; a token's hash by its first digits. */
export function shortPrincipal(principal: string): string {
  const colon = principal.indexOf(":");
  const rest = principal.slice(colon + 1);
  return principal.slice(0, colon) === "token" ? `token ${rest.slice(0, 8)}` : rest.split("|")[0]!;
}
