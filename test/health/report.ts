import type { StatusReport } from "../../src/health/status-report.ts";

const HOUR_MS = 3_600_000;
const nowMs = Date.UTC(2026, 10, 23, 12);

/** A report of a node that is well; a test says what is not. */
export function report(changes: Partial<StatusReport> = {}): StatusReport {
  return {
    apiVersion: "holdfast.dev/v1alpha1",
    kind: "Status",
    version: "1.2.3",
    startedAtMs: nowMs - 5 * HOUR_MS,
    nowMs,
    link: {
      state: "online",
      sinceMs: nowMs - 3.2 * HOUR_MS,
      servers: [{ url: "https://10.0.0.1:6443", lastContactMs: nowMs - 2_000 }],
    },
    scopes: [
      scope(),
      scope({ resource: "nodes", fieldSelector: "metadata.name=gw-1" }),
      scope({
        resource: "endpointslices",
        group: "discovery.k8s.io",
        principal: "token:0123456789abcdef",
        resourceVersion: "",
        state: "listing",
        watchers: 0,
        items: 0,
        bytes: 0,
        lastContactMs: 0,
      }),
    ],
    store: {
      mode: "disk",
      reason: "",
      path: "/var/lib/holdfast/cache.db",
      sizeBytes: 1_200_000,
      scopes: 3,
      objects: 12,
      responses: 2,
      quarantined: 0,
      commits: 4,
      rowsWritten: 20,
      sealing: "file",
    },
    certificates: [
      { name: "upstream", subject: "O=system:nodes, CN=system:node:gw-1", notAfterMs: nowMs + 214.5 * 24 * HOUR_MS },
      { name: "serving", subject: "CN=holdfast", notAfterMs: nowMs + 3_650 * 24 * HOUR_MS },
    ],
    requests: { forwarded: 10, servedFromCache: 5, refusedWrites: 0 },
    conditions: [],
    ...changes,
  };
}

/** A live scope of kubelet's. */
export function scope(changes: Partial<StatusReport["scopes"][number]> = {}): StatusReport["scopes"][number] {
  return {
    principal: "certificate:system:node:gw-1|system:nodes",
    group: "",
    version: "v1",
    resource: "pods",
    namespace: "",
    fieldSelector: "",
    labelSelector: "",
    representation: "json",
    state: "live",
    resourceVersion: "41",
    items: 6,
    bytes: 24_000,
    watchers: 1,
    lastContactMs: nowMs - 12_000,
    note: "",
    ...changes,
  };
}
