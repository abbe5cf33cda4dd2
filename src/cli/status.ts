/**
 * `holdfast status`: the first line answers "can I walk away?".
 *
 * Everything below it is for whoever cannot: what the link does, what is kept,
 * for whom, and which condition to mend first.
 */

import { formatDuration, formatSize } from "../base/units.ts";
import { coverageWords, gapWords } from "../health/coverage-report.ts";
import { statusReportSchema, type StatusReport } from "../health/status-report.ts";
import { STATUS_FLAGS } from "./flag-table.ts";
import { readFlags, UsageError } from "./flags.ts";
import { jsonSchemaOf } from "./json-schema.ts";
import { findDaemon, reachDaemon, sorry, type PlaceFlags, type Reached } from "./reach.ts";
import { jsonText, print, short, table, wrapped } from "./terminal.ts";
import { withIsoTimes } from "./times.ts";
import { counted, scopeName, shortPrincipal } from "./words.ts";

const DAY_MS = 86_400_000;
/** A condition in words. */
const MAX_WORDS = 600;

/** Prints where things stand. @returns 0 online, 3 offline or with conditions, 1 not running. */
export async function command(args: readonly string[]): Promise<number> {
  const { values, positionals } = readFlags(args, STATUS_FLAGS);
  if (positionals.length > 0) throw new UsageError(`Unexpected argument '${positionals[0]}'`);
  if (values.output !== undefined && values.output !== "json")
    throw new UsageError(`Unknown output '${values.output}'; expected json`);
  if (values.schema === true) {
    print(JSON.stringify(jsonSchemaOf(statusReportSchema, "holdfast status -o json"), undefined, 2));
    return 0;
  }
  const isJson = values.output === "json";
  if (values.watch === true) return watchStatus(values, isJson);
  const daemon = await reachDaemon(values, "holdfast status");
  if (daemon === undefined) return 1;
  print(isJson ? jsonText(withIsoTimes(daemon.document)) : prose(daemon.report, terminalWidth()));
  return exitCodeOf(daemon);
}

/** How often it is looked. */
const WATCH_EVERY_MS = 2_000;
const CLEAR = "\u001b[H\u001b[2J\u001b[3J";

/** Shows it anew every two seconds, until Ctrl-C; a daemon that is away is waited for. On a pipe a document or a first line each time. */
async function watchStatus(values: PlaceFlags, isJson: boolean): Promise<number> {
  const isScreen = process.stdout.isTTY && !isJson;
  for (;;) {
    const found = await findDaemon(values, "holdfast status --watch");
    if ("problem" in found) {
      if (!isScreen) return sorry("holdfast status", found);
      print(`${CLEAR}${wrapped(`${found.problem}; ${found.next}`, terminalWidth())}`);
    } else if (isJson) print(JSON.stringify(withIsoTimes(found.document)));
    else if (isScreen) print(`${CLEAR}${prose(found.report, terminalWidth())}`);
    else print(firstLine(found.report));
    await Bun.sleep(WATCH_EVERY_MS);
  }
}

/** Of a terminal, at most 100: longer lines are hard to read. A pipe has none. */
function terminalWidth(): number {
  return process.stdout.isTTY ? Math.min(100, process.stdout.columns) : Infinity;
}

function exitCodeOf({ report: { link, conditions } }: Reached): number {
  return link.state === "online" && conditions.length === 0 ? 0 : 3;
}

/** The report for people. @param width no line is wider. */
export function prose(report: StatusReport, width = Infinity): string {
  const { conditions, nowMs, scopes } = report;
  const ago = (ms: number | undefined) =>
    ms === undefined || ms === 0 ? "never" : `${formatDuration(nowMs - ms)} ago`;
  const fit = (block: string) =>
    block
      .split("\n")
      .map((line) => wrapped(line, width))
      .join("\n");
  const blocks = [
    fit(firstLine(report)),
    fit(horizonLines(report)),
    fit(conditionsTable(conditions, ago)),
    coverageTable(report, width),
    serversTable(report, ago, width),
    scopesTable(scopes, ago, width),
    fit(sharingLine(report)),
    fit(offlineLine(report)),
    fit(tunnelLine(report)),
    fit(podsLine(report)),
    clientsTable(report, width),
    certificatesTable(report, ago, width),
    fit(storeLine(report)),
  ];
  return blocks.filter((block) => block !== "").join("\n\n");
}

function serversTable({ link }: StatusReport, ago: Ago, width: number): string {
  return table(
    ["API SERVER", "RTT", "LAST CONTACT", "LAST ERROR"],
    link.servers.map(({ url, rttMs, lastContactMs, lastError }) => [
      url,
      rttMs === undefined ? "" : `${Math.round(rttMs)} ms`,
      ago(lastContactMs),
      lastError ?? "",
    ]),
    width,
  );
}

function certificatesTable({ certificates, nowMs }: StatusReport, ago: Ago, width: number): string {
  return table(
    ["CERTIFICATE", "SUBJECT", "ENDS"],
    certificates.map(({ name, subject, notAfterMs }) => [
      name,
      subject,
      notAfterMs < nowMs ? `EXPIRED ${ago(notAfterMs)}` : `in ${Math.floor((notAfterMs - nowMs) / DAY_MS)} days`,
    ]),
    width,
  );
}

/** Where the API server reaches this node. */
export function tunnelLine({ tunnel, nowMs }: Pick<StatusReport, "tunnel" | "nowMs">): string {
  if (tunnel === undefined) return "";
  const { state, gateway, sinceMs, place, streams, roundTripMs, problem } = tunnel;
  const since = formatDuration(nowMs - sinceMs);
  if (state === "connecting")
    return `Tunnel: DOWN for ${since}, trying ${short(gateway)}${problem === undefined ? "" : `: ${short(problem, MAX_WORDS)}`}`;
  const trip = roundTripMs === undefined ? "" : `, ${roundTripMs} ms away`;
  return `Tunnel: open for ${since} to ${short(gateway)}${trip}; the API server dials ${place ?? "nowhere yet"}; ${counted(streams, "stream")} now`;
}

function storeLine({ store }: StatusReport): string {
  return `Store: ${store.mode === "disk" ? store.path : `IN MEMORY (${store.reason})`}, ${formatSize(store.sizeBytes)}, ${store.objects} objects, ${store.responses} answers, ${store.quarantined} damaged, sealing key from ${store.sealing}`;
}

/** How long one may walk away, and what else ends. */
export function horizonLines({ horizon, nowMs }: StatusReport): string {
  if (horizon === undefined) return "";
  const { endsMs, because, ends } = horizon;
  const days = endsMs === undefined ? undefined : Math.floor((endsMs - nowMs) / DAY_MS);
  const until = (ms: number) =>
    ms < nowMs ? `ended ${formatDuration(nowMs - ms)} ago` : `ends in ${formatDuration(ms - nowMs)}`;
  const first =
    days === undefined
      ? "This node survives any time offline: nothing of it ends"
      : days < 0
        ? `This node is beyond its horizon: ${short(because)} has ended`
        : `This node survives ${counted(days, "more day", "more days")} offline: ${short(because)} ends then`;
  return [first, ...ends.map(({ what, endsMs: ms, effect }) => `  ${short(what)} ${until(ms)}: ${short(effect)}`)].join(
    "\n",
  );
}

type Ago = (ms: number | undefined) => string;

/** Each with its next step below it: both are too long for a cell. */
function conditionsTable(conditions: StatusReport["conditions"], ago: Ago): string {
  return conditions
    .map(({ type, reason, message, sinceMs, next = "" }) => {
      const since = sinceMs === undefined ? "" : `, since ${ago(sinceMs)}`;
      const words = `${short(type)} (${short(reason)}${since}): ${short(message, MAX_WORDS)}`;
      return next === "" ? words : `${words}\n  ${short(next, MAX_WORDS)}`;
    })
    .join("\n");
}

function scopesTable(scopes: StatusReport["scopes"], ago: Ago, width: number): string {
  if (scopes.length === 0) return "Nothing has been asked for yet.";
  return table(
    ["RESOURCE", "NAMESPACE", "CALLER", "STATE", "ITEMS", "SIZE", "WATCHES", "LAST CONTACT"],
    scopes.map((scope) => [
      scopeName(scope),
      scope.namespace || "(all)",
      shortPrincipal(scope.principal),
      scope.note === "" ? `${scope.state}${scope.sharesWatchOf === undefined ? "" : ", shared"}` : scope.note,
      String(scope.items),
      formatSize(scope.bytes),
      String(scope.watchers),
      ago(scope.lastContactMs),
    ]),
    width,
  );
}

function firstLine({ link, scopes, coverage, certificates, requests, conditions, nowMs }: StatusReport): string {
  const kept = scopes.filter(({ resourceVersion }) => resourceVersion !== "").length;
  const live = scopes.filter(({ state }) => state === "live").length;
  const upstream = certificates.find(({ name }) => name === "upstream");
  const days = upstream === undefined ? undefined : Math.floor((upstream.notAfterMs - nowMs) / DAY_MS);
  return [
    `${link.state.toUpperCase()} ${formatDuration(nowMs - link.sinceMs)}`,
    ...(link.turnInMs === undefined
      ? []
      : [`the API server answers again, this node's turn in ${formatDuration(link.turnInMs)}`]),
    ...(coverage === undefined ? [] : [short(coverageWords(coverage), MAX_WORDS)]),
    link.state === "online" ? `${counted(live, "scope")} live` : `serving ${counted(kept, "scope")} from cache`,
    ...(days === undefined
      ? []
      : [days < 0 ? "client certificate EXPIRED" : `client certificate covers ${counted(days, "day")} more`]),
    ...(requests.refusedWrites === 0 ? [] : [`${counted(requests.refusedWrites, "write")} refused`]),
    ...(conditions.length === 0 ? [] : [`${counted(conditions.length, "condition")} to look at`]),
  ].join(" · ");
}

/** The pods that do not come back, or may not, after a restart while cut; none where all do. */
export function coverageTable({ coverage }: Pick<StatusReport, "coverage">, width = Infinity): string {
  const pods = coverage?.pods.filter(({ comesBack }) => comesBack !== "yes") ?? [];
  if (pods.length === 0) return "";
  return table(
    ["POD", "COMES BACK", "FOR WANT OF"],
    pods.map(({ namespace, name, comesBack, missing, unknown }) => [
      `${namespace}/${name}`,
      comesBack,
      [...missing, ...unknown].map(gapWords).join(", "),
    ]),
    width,
  );
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

function podsLine({ podAccess }: StatusReport): string {
  if (podAccess === undefined) return "";
  return `Pods: pods started here come through Holdfast, at ${podAccess.server}`;
}

/** Who asks, and how much is kept for them. */
function clientsTable({ scopes }: StatusReport, width: number): string {
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
    width,
  );
}
