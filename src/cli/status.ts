/**
 * `holdfast status`: the first line answers "can I walk away?".
 */

import * as v from "valibot";
import { formatDuration } from "../base/units.ts";
import { DEFAULT_STATE_DIR, socketPath } from "../config.ts";
import { statusReportSchema, type StatusReport } from "../health/status-report.ts";
import { UsageError, complain, print, readFlags, table } from "./command.ts";

/** Prints where things stand. */
export async function command(args: readonly string[]): Promise<number> {
  const { values } = readFlags(args, { output: { type: "string", short: "o" }, "state-dir": { type: "string" }, "admin-socket": { type: "string" } });
  if (values.output !== undefined && values.output !== "json") throw new UsageError(`Unknown output '${values.output}'; expected json`);
  const path = socketPath(values["state-dir"] ?? process.env["HOLDFAST_STATE_DIR"] ?? DEFAULT_STATE_DIR, values["admin-socket"] ?? process.env["HOLDFAST_ADMIN_SOCKET"]);
  let report: StatusReport;
  try {
    const response = await fetch("http://holdfast/v1/status", { unix: path ?? "" } as RequestInit);
    report = v.parse(statusReportSchema, await response.json());
  } catch {
    complain(`holdfast status: no daemon answers on ${path ?? "its socket"}`);
    complain("See: systemctl status holdfast, or name the folder with --state-dir DIR");
    return 1;
  }
  print(values.output === "json" ? JSON.stringify(report, undefined, 2) : prose(report));
  return report.link.state === "online" && report.conditions.length === 0 ? 0 : 3;
}

/** The report for people. */
export function prose(report: StatusReport): string {
  const { link, scopes, store, certificates, requests, conditions, nowMs } = report;
  const kept = scopes.filter(({ resourceVersion }) => resourceVersion !== "");
  const upstream = certificates.find(({ name }) => name === "upstream");
  const days = upstream === undefined ? undefined : Math.floor((upstream.notAfterMs - nowMs) / 86_400_000);
  const first = [
    link.state === "online" ? `ONLINE ${formatDuration(nowMs - link.sinceMs)}` : `${link.state.toUpperCase()} ${formatDuration(nowMs - link.sinceMs)}`,
    `${kept.length} lists kept, ${kept.filter(({ state }) => state === "live").length} live, ${scopes.reduce((sum, { watchers }) => sum + watchers, 0)} watches open`,
    ...(days === undefined ? [] : [days < 0 ? "client certificate EXPIRED" : `client certificate covers ${days} days more`]),
    `${requests.refusedWrites} writes refused`,
  ].join(" · ");
  const ago = (ms: number | undefined) => (ms === undefined || ms === 0 ? "never" : `${formatDuration(nowMs - ms)} ago`);
  return [
    first,
    ...conditions.map(({ type, message }) => `! ${type}: ${message}`),
    "",
    table(["API SERVER", "LAST CONTACT", "LAST ERROR"], link.servers.map(({ url, lastContactMs, lastError }) => [url, ago(lastContactMs), lastError ?? ""])),
    "",
    table(["RESOURCE", "NAMESPACE", "CALLER", "STATE", "ITEMS", "BYTES", "WATCHES", "LAST CONTACT"], scopes.map((scope) => [`${scope.resource}${scope.group === "" ? "" : `.${scope.group}`}${selectorNote(scope)}`, scope.namespace || "(all)", shortPrincipal(scope.principal), scope.note === "" ? scope.state : scope.note, String(scope.items), String(scope.bytes), String(scope.watchers), ago(scope.lastContactMs)])),
    "",
    `Store: ${store.mode === "disk" ? store.path : `in memory (${store.reason})`}, ${(store.sizeBytes / 1e6).toFixed(1)} MB, ${store.objects} objects, ${store.responses} answers, ${store.quarantined} damaged, sealing key from ${store.sealing}`,
  ].join("\n");
}

function selectorNote({ fieldSelector, labelSelector }: { readonly fieldSelector: string; readonly labelSelector: string }): string {
  const selectors = [fieldSelector, labelSelector].filter((text) => text !== "").join(" ");
  return selectors === "" ? "" : ` (${selectors})`;
}

/** "certificate:admin|system:masters" as "admin"; a token's hash by its first digits. */
export function shortPrincipal(principal: string): string {
  const [kind, rest = ""] = [principal.slice(0, principal.indexOf(":")), principal.slice(principal.indexOf(":") + 1)];
  return kind === "token" ? `token ${rest.slice(0, 8)}` : rest.split("|")[0]!;
}
