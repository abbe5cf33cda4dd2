/**
 * What `holdfast get` prints of an object: kubectl's columns for what people
 * look for on a node, name and age for all else.
 *
 * Source: k8s.io/kubernetes pkg/printers/internalversion/printers.go.
 */

import { humanDuration } from "../kube/human-duration.ts";

/** An object as its JSON has it. */
export type Shown = Readonly<Record<string, any>>;

/** One column. */
export interface Column {
  readonly title: string;
  /** Only with -o wide. */
  readonly isWide?: true;
  readonly cell: (object: Shown, nowMs: number) => string;
}

const column = (title: string, cell: Column["cell"]): Column => ({ title, cell });
const wide = (title: string, cell: Column["cell"]): Column => ({ title, cell, isWide: true });
const orNone = (text: unknown): string =>
  text === undefined || text === null || text === "" ? "<none>" : String(text);
const list = (value: unknown): readonly Shown[] => (Array.isArray(value) ? (value as Shown[]) : []);
const size = (value: unknown): number => (typeof value === "object" && value !== null ? Object.keys(value).length : 0);

const NAME = column("NAME", ({ metadata }) => orNone(metadata?.name));
const AGE = column("AGE", ({ metadata }, nowMs) => ageOf(metadata?.creationTimestamp, nowMs));

/** Columns by resource and group. */
const COLUMNS: Readonly<Record<string, readonly Column[]>> = {
  "/pods": [
    column(
      "READY",
      (pod) =>
        `${list(pod["status"]?.containerStatuses).filter(({ ready }) => ready === true).length}/${list(pod["spec"]?.containers).length}`,
    ),
    column("STATUS", podStatus),
    column("RESTARTS", restarts),
    AGE,
    wide("IP", ({ status }) => orNone(status?.podIP)),
    wide("NODE", ({ spec }) => orNone(spec?.nodeName)),
  ],
  "/nodes": [
    column("STATUS", nodeStatus),
    column("ROLES", nodeRoles),
    AGE,
    column("VERSION", ({ status }) => orNone(status?.nodeInfo?.kubeletVersion)),
    wide("INTERNAL-IP", (node) => addressOf(node, "InternalIP")),
    wide("OS-IMAGE", ({ status }) => orNone(status?.nodeInfo?.osImage)),
    wide("CONTAINER-RUNTIME", ({ status }) => orNone(status?.nodeInfo?.containerRuntimeVersion)),
  ],
  "/namespaces": [column("STATUS", ({ status }) => orNone(status?.phase)), AGE],
  "/services": [
    column("TYPE", ({ spec }) => orNone(spec?.type)),
    column("CLUSTER-IP", ({ spec }) => orNone(spec?.clusterIP)),
    column("EXTERNAL-IP", externalIp),
    column("PORT(S)", ({ spec }) => orNone(list(spec?.ports).map(portText).join(","))),
    AGE,
    wide("SELECTOR", ({ spec }) => orNone(pairs(spec?.selector))),
  ],
  "/configmaps": [column("DATA", ({ data, binaryData }) => String(size(data) + size(binaryData))), AGE],
  "/secrets": [column("TYPE", ({ type }) => orNone(type)), column("DATA", ({ data }) => String(size(data))), AGE],
  "/endpoints": [column("ENDPOINTS", ({ subsets }) => orNone(list(subsets).flatMap(subsetText).join(","))), AGE],
  "discovery.k8s.io/endpointslices": [
    column("ADDRESSTYPE", ({ addressType }) => orNone(addressType)),
    column("PORTS", ({ ports }) =>
      orNone(
        list(ports)
          .map(({ port }) => orNone(port))
          .join(","),
      ),
    ),
    column("ENDPOINTS", ({ endpoints }) =>
      orNone(
        list(endpoints)
          .flatMap(({ addresses }) => addresses ?? [])
          .join(","),
      ),
    ),
    AGE,
  ],
  "apps/deployments": [
    column("READY", ({ spec, status }) => `${status?.readyReplicas ?? 0}/${spec?.replicas ?? 1}`),
    column("UP-TO-DATE", ({ status }) => String(status?.updatedReplicas ?? 0)),
    column("AVAILABLE", ({ status }) => String(status?.availableReplicas ?? 0)),
    AGE,
  ],
  "apps/daemonsets": [
    column("DESIRED", ({ status }) => String(status?.desiredNumberScheduled ?? 0)),
    column("READY", ({ status }) => String(status?.numberReady ?? 0)),
    column("AVAILABLE", ({ status }) => String(status?.numberAvailable ?? 0)),
    AGE,
  ],
};

/** The columns of a resource, name first. */
export function columnsOf(group: string, resource: string, isWide: boolean): readonly Column[] {
  const own = COLUMNS[`${group}/${resource}`] ?? [AGE];
  return [NAME, ...own.filter((one) => isWide || one.isWide !== true)];
}

/** How long ago a time of Kubernetes' was. */
export function ageOf(time: unknown, nowMs: number): string {
  const atMs = typeof time === "string" ? Date.parse(time) : Number.NaN;
  return Number.isNaN(atMs) ? "<unknown>" : humanDuration(nowMs - atMs);
}

function podStatus({ metadata, spec, status }: Shown): string {
  const containers = list(status?.containerStatuses);
  let reason: string = status?.reason || status?.phase || "Unknown";
  const starting = list(status?.initContainerStatuses).findIndex(
    ({ state, started }) => !(state?.terminated?.exitCode === 0 || (state?.running !== undefined && started === true)),
  );
  if (starting >= 0) {
    const { state } = list(status?.initContainerStatuses)[starting]!;
    const { terminated, waiting } = state ?? {};
    if (terminated !== undefined) reason = `Init:${terminated.reason || `ExitCode:${terminated.exitCode}`}`;
    else if (waiting?.reason && waiting.reason !== "PodInitializing") reason = `Init:${waiting.reason}`;
    else reason = `Init:${starting}/${list(spec?.initContainers).length}`;
  } else {
    for (const { state } of containers.toReversed()) {
      if (state?.waiting?.reason) reason = state.waiting.reason;
      else if (state?.terminated !== undefined)
        reason =
          state.terminated.reason ||
          (state.terminated.signal ? `Signal:${state.terminated.signal}` : `ExitCode:${state.terminated.exitCode}`);
    }
    if (reason === "Completed" && containers.some(({ ready, state }) => ready === true && state?.running !== undefined))
      reason = "Running";
  }
  if (metadata?.deletionTimestamp) return status?.reason === "NodeLost" ? "Unknown" : "Terminating";
  return reason;
}

function restarts({ status }: Shown, nowMs: number): string {
  const containers = list(status?.containerStatuses);
  const count = containers.reduce((sum, { restartCount }) => sum + Number(restartCount ?? 0), 0);
  const ends = containers
    .map(({ lastState }) => Date.parse(lastState?.terminated?.finishedAt ?? ""))
    .filter((ms) => !Number.isNaN(ms));
  return count === 0 || ends.length === 0
    ? String(count)
    : `${count} (${humanDuration(nowMs - Math.max(...ends))} ago)`;
}

function nodeStatus({ spec, status }: Shown): string {
  const ready = list(status?.conditions).find(({ type }) => type === "Ready");
  const word = ready === undefined ? "Unknown" : ready["status"] === "True" ? "Ready" : "NotReady";
  return spec?.unschedulable === true ? `${word},SchedulingDisabled` : word;
}

function nodeRoles({ metadata }: Shown): string {
  const prefix = "node-role.kubernetes.io/";
  const roles = Object.keys(metadata?.labels ?? {}).filter((label) => label.startsWith(prefix));
  return orNone(
    roles
      .map((label) => label.slice(prefix.length))
      .sort()
      .join(","),
  );
}

function addressOf({ status }: Shown, wanted: string): string {
  return orNone(list(status?.addresses).find(({ type }) => type === wanted)?.["address"]);
}

function externalIp({ spec, status }: Shown): string {
  const balanced = list(status?.loadBalancer?.ingress).map(({ ip, hostname }) => ip || hostname);
  const given = [...balanced, ...(spec?.externalIPs ?? [])];
  if (spec?.type === "ExternalName") return orNone(spec.externalName);
  return given.length === 0 && spec?.type === "LoadBalancer" ? "<pending>" : orNone(given.join(","));
}

function portText({ port, nodePort, protocol }: Shown): string {
  return `${port}${nodePort ? `:${nodePort}` : ""}/${protocol ?? "TCP"}`;
}

function subsetText({ addresses, ports }: Shown): readonly string[] {
  return list(addresses).flatMap(({ ip }) => list(ports).map(({ port }) => `${ip}:${port}`));
}

function pairs(map: unknown): string {
  return Object.entries((map ?? {}) as object)
    .map(([key, value]) => `${key}=${value}`)
    .join(",");
}
