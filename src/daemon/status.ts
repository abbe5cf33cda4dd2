/**
 * The daemon's state as a report; no object bodies, no credentials.
 */

import { X509Certificate } from "node:crypto";
import type { Scopes } from "../cache/scopes.ts";
import type { SharingSource } from "../cache/sharing.ts";
import type { KeyPair } from "../certificates/authority.ts";
import type { Config } from "../config/config.ts";
import type { DaemonMetrics } from "./metrics.ts";
import type { StatusReport } from "../health/status-report.ts";
import type { Link } from "../uplink/link.ts";
import type { SqliteStore } from "../store/store.ts";

/** What a report is made from. */
export interface StatusSources {
  readonly config: Config;
  readonly link: Link;
  readonly scopes: Scopes;
  readonly sharing: SharingSource;
  readonly store: SqliteStore;
  readonly servers: ReadonlyMap<string, { readonly lastContactMs?: number; readonly lastError?: string }>;
  readonly metrics: DaemonMetrics;
  readonly version: string;
  readonly startedAtMs: number;
  readonly nowMs: number;
  readonly serving: KeyPair;
  readonly offline: NonNullable<StatusReport["offline"]>;
  /** The API server answers our own credential with 401. */
  readonly isRefused: boolean;
}

/** Makes a report. */
export function reportStatus(sources: StatusSources): StatusReport {
  const { config, link, scopes, sharing, store, servers, metrics, version, startedAtMs, nowMs, serving } = sources;
  const certificates = [certificateEntry("serving", serving.certPem)];
  const { credential } = config.upstream;
  if (credential.kind === "certificate") certificates.unshift(certificateEntry("upstream", credential.read().certPem));
  return {
    apiVersion: "holdfast.dev/v1alpha1",
    kind: "Status",
    version,
    startedAtMs,
    nowMs,
    link: {
      state: link.state,
      sinceMs: link.sinceMs,
      servers: [...servers].map(([url, { lastContactMs, lastError }]) => ({
        url,
        ...(lastContactMs === undefined ? {} : { lastContactMs }),
        ...(lastError === undefined ? {} : { lastError }),
      })),
    },
    scopes: [...scopes.all()].map((scope) => {
      const { listed } = scope;
      const { items, bytes } = store.sizeOf(scope.id);
      const base = sharing.baseOf(scope);
      return {
        ...scope.identity,
        state: scope.state,
        resourceVersion: listed?.resourceVersion ?? "",
        items,
        bytes,
        watchers: scope.watcherCount - sharing.derivedCount(scope),
        lastContactMs: listed?.lastContactMs ?? 0,
        note: scope.isOversize ? "too large: passed through, not kept" : "",
        ...(base === undefined ? {} : { sharesWatchOf: base.identity.principal }),
      };
    }),
    store: store.status(),
    certificates,
    requests: { ...metrics.counts },
    sharedBytes: sharing.bytes,
    offline: sources.offline,
    conditions: conditionsOf(sources, certificates),
  };
}

function conditionsOf(
  { store, scopes, nowMs, isRefused }: StatusSources,
  certificates: StatusReport["certificates"],
): StatusReport["conditions"] {
  const conditions: StatusReport["conditions"] = [];
  const { mode, reason, quarantined, sealing } = store.status();
  if (mode === "memory")
    conditions.push({
      type: "StoreInMemory",
      reason,
      message: "The state folder cannot be written: a restart forgets what is kept",
    });
  if (isRefused)
    conditions.push({
      type: "CredentialRefused",
      reason: "Unauthorized",
      message:
        "The API server does not accept the node's certificate (401): what is kept goes on being served; renew it or join the node again",
    });
  if (quarantined > 0)
    conditions.push({
      type: "DataQuarantined",
      reason: "ChecksumFailed",
      message: `${quarantined} damaged rows or files were set aside`,
    });
  if (sealing === "memory")
    conditions.push({
      type: "SealingKeyInMemory",
      reason: "KeyFileNotWritable",
      message: "Secrets kept now cannot be opened after a restart",
    });
  for (const { name, notAfterMs } of certificates) {
    const days = Math.floor((notAfterMs - nowMs) / 86_400_000);
    if (days < 14)
      conditions.push({
        type: "CertificateExpiring",
        reason: days < 0 ? "Expired" : "ExpiresSoon",
        message: `The ${name} certificate ${days < 0 ? "has expired" : `ends in ${days} days`}`,
      });
  }
  if ([...scopes.all()].some(({ isOversize }) => isOversize))
    conditions.push({
      type: "ScopePassedThrough",
      reason: "TooLarge",
      message: "Some lists are too large to be kept and will not be there offline",
    });
  return conditions;
}

function certificateEntry(name: string, certPem: string): StatusReport["certificates"][number] {
  const { subject, validTo } = new X509Certificate(certPem);
  return { name, subject: subject.replaceAll("\n", ", "), notAfterMs: Date.parse(validTo) };
}
