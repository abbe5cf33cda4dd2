/**
 * The daemon's state as a report, and the conditions that can be read off it; no
 * object bodies, no credentials.
 */

import { X509Certificate } from "node:crypto";
import type { Scopes } from "../cache/scopes.ts";
import type { SharingSource } from "../cache/sharing.ts";
import type { Finding } from "../base/conditions.ts";
import type { KeyPair } from "../certificates/authority.ts";
import type { StatusReport } from "../health/status-report.ts";
import type { Link } from "../uplink/link.ts";
import type { Front, FrontGround } from "./front.ts";
import type { Ground } from "./ground.ts";
import type { Servers } from "./uplink.ts";

/** What a report is made from. */
export interface StatusSources extends Ground {
  readonly link: Link;
  readonly scopes: Scopes;
  readonly sharing: SharingSource;
  readonly servers: Servers;
  readonly nowMs: number;
  /** Undefined before the listeners are open. */
  readonly serving: KeyPair | undefined;
  readonly offline: NonNullable<StatusReport["offline"]>;
}

/** Makes a report. */
export function reportStatus(sources: StatusSources): StatusReport {
  const { link, scopes, sharing, store, servers, metrics, version, startedAtMs, nowMs, serving } = sources;
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
      const { items, bytes } = scope.copy.isDropped ? { items: 0, bytes: 0 } : scope.copy.size();
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
    certificates: [...certificates(sources, serving)].map(([name, certPem]) => certificateEntry(name, certPem)),
    requests: { ...metrics.counts },
    sharedBytes: sharing.bytes,
    offline: sources.offline,
    conditions: sources.conditions.all(),
  };
}

/** The conditions that can be read off at any time; what happens is raised where it happens. */
export function watchConditions(ground: Ground, { copies, node }: FrontGround, front: Front): void {
  const { clock, conditions, store } = ground;
  conditions.watch("StoreInMemory", () => storeFinding(store.status()));
  conditions.watch("CredentialRefused", () => (node.reconnect.isRefused ? CREDENTIAL_REFUSED : undefined));
  conditions.watch("DataQuarantined", () => quarantineFinding(store.status().quarantined));
  conditions.watch("SealingKeyInMemory", () =>
    store.status().sealing === "memory" ? SEALING_KEY_IN_MEMORY : undefined,
  );
  for (const name of ["upstream", "serving"])
    conditions.watch(
      "CertificateExpiring",
      () => certificateFinding(name, certificates(ground, front.listeners.serving).get(name), clock.nowMs()),
      name,
    );
  conditions.watch("ScopePassedThrough", () =>
    [...copies.scopes.all()].some(({ isOversize }) => isOversize) ? SCOPE_PASSED_THROUGH : undefined,
  );
}

const CREDENTIAL_REFUSED: Finding = {
  reason: "Unauthorized",
  message: "The API server does not accept the node's certificate (401): what is kept goes on being served",
  next: "Renew it, or join the node again",
};
const SEALING_KEY_IN_MEMORY: Finding = {
  reason: "KeyFileNotWritable",
  message: "Secrets kept now cannot be opened after a restart",
  next: "Make the state folder's keys writable for root",
};
const SCOPE_PASSED_THROUGH: Finding = {
  reason: "TooLarge",
  message: "Some lists are too large to be kept and will not be there offline",
  next: "See holdfast cache ls; raise limits.scopeMaxItems or limits.scopeMaxBytes",
};
const SOON_DAYS = 14;

function storeFinding({ mode, reason }: StatusReport["store"]): Finding | undefined {
  if (mode !== "memory") return undefined;
  return {
    reason,
    message: "The state folder cannot be written: a restart forgets what is kept",
    next: "See: df -h, and mount | grep holdfast; free space or make the folder writable",
  };
}

function quarantineFinding(quarantined: number): Finding | undefined {
  if (quarantined === 0) return undefined;
  return {
    reason: "ChecksumFailed",
    message: `${quarantined} damaged rows or files were set aside`,
    next: "Look after the disk: journalctl -k",
  };
}

function certificateFinding(name: string, certPem: string | undefined, nowMs: number): Finding | undefined {
  if (certPem === undefined) return undefined;
  const days = Math.floor((certificateEntry(name, certPem).notAfterMs - nowMs) / 86_400_000);
  if (days >= SOON_DAYS) return undefined;
  return {
    reason: days < 0 ? "Expired" : "ExpiresSoon",
    message: `The ${name} certificate ${days < 0 ? "has expired" : `ends in ${days} days`}`,
    next: name === "upstream" ? "Renew it while the link is there" : "Restart holdfast: it issues a new one",
  };
}

/** The certificates that matter, by name: PEM. */
function certificates({ config }: Ground, serving: KeyPair | undefined): ReadonlyMap<string, string> {
  const { credential } = config.upstream;
  return new Map([
    ...(credential.kind === "certificate" ? [["upstream", credential.read().certPem] as const] : []),
    ...(serving === undefined ? [] : [["serving", serving.certPem] as const]),
  ]);
}

function certificateEntry(name: string, certPem: string): StatusReport["certificates"][number] {
  const { subject, validTo } = new X509Certificate(certPem);
  return { name, subject: subject.replaceAll("\n", ", "), notAfterMs: Date.parse(validTo) };
}
