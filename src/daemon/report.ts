/**
 * The daemon's state as a report; no object bodies, no credentials.
 */

import { X509Certificate } from "node:crypto";
import { hostPortText } from "../base/address.ts";
import { cutText } from "../base/units.ts";
import type { Scopes } from "../cache/scopes.ts";
import type { SharingSource } from "../cache/sharing.ts";
import type { KeyPair } from "../certificates/authority.ts";
import type { ScopeIdentity } from "../store/contract.ts";
import type { StatusReport } from "../health/status-report.ts";
import type { Link } from "../uplink/link.ts";
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
  /** The local CA in office, PEM; undefined before the listeners are open. */
  readonly localCa: string | undefined;
  readonly offline: NonNullable<StatusReport["offline"]>;
  /** Who renews a certificate, and when. */
  readonly renewal: (name: string) => Pick<StatusReport["certificates"][number], "renewAtMs" | "renewedBy">;
  readonly tunnel: StatusReport["tunnel"];
  readonly horizon: () => NonNullable<StatusReport["horizon"]>;
}

/** Makes a report. */
export function reportStatus(sources: StatusSources): StatusReport {
  const { link, scopes, sharing, store, servers, metrics, version, startedAtMs, nowMs, serving } = sources;
  return {
    apiVersion: "holdfast.dev/v1alpha1",
    kind: "Status",
    version,
    pid: process.pid,
    startedAtMs,
    nowMs,
    link: {
      state: link.state,
      sinceMs: link.sinceMs,
      ...(link.turnInMs === undefined ? {} : { turnInMs: link.turnInMs }),
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
        ...boundedIdentity(scope.identity),
        state: scope.state,
        resourceVersion: listed?.resourceVersion ?? "",
        items,
        bytes,
        watchers: scope.watcherCount - sharing.derivedCount(scope),
        lastContactMs: listed?.lastContactMs ?? 0,
        note: scope.isOversize ? "too large: passed through, not kept" : "",
        ...(base === undefined ? {} : { sharesWatchOf: namedPrincipal(base.identity.principal) }),
      };
    }),
    store: store.status(),
    certificates: [...certificates(sources, serving, sources.localCa)].map(([name, certPem]) => ({
      ...certificateEntry(name, certPem),
      ...sources.renewal(name),
    })),
    horizon: sources.horizon(),
    ...(sources.tunnel === undefined ? {} : { tunnel: sources.tunnel }),
    ...podAccessOf(sources),
    requests: { ...metrics.counts },
    sharedBytes: sharing.bytes,
    offline: sources.offline,
    conditions: sources.conditions.all(),
  };
}

function podAccessOf({ config: { podAccess } }: StatusSources): Pick<StatusReport, "podAccess"> {
  if (podAccess === undefined) return {};
  const { serviceAddress, listen } = podAccess;
  const server = `https://${hostPortText({ host: serviceAddress, port: listen.port })}`;
  return { podAccess: { server, listen: hostPortText(listen) } };
}

/** A selector may be as long as a URL, and two thousand scopes are one report. */
const MAX_FIELD = 256;

function boundedIdentity(identity: ScopeIdentity): ScopeIdentity {
  const fields = Object.entries({ ...identity, principal: namedPrincipal(identity.principal) }).map(([name, text]) => [
    name,
    cutText(text as string, MAX_FIELD),
  ]);
  return Object.fromEntries(fields) as ScopeIdentity;
}

/** A token's caller by the first digits of its hash: enough to tell it from another, and no handle on anything. */
function namedPrincipal(principal: string): string {
  return principal.replace(/^(token:[0-9a-f]{8})[0-9a-f]*$/, "$1");
}

/** The certificates that matter, by name: PEM. */
export function certificates(
  { config }: Pick<Ground, "config">,
  serving: KeyPair | undefined,
  localCa?: string,
): ReadonlyMap<string, string> {
  const { credential } = config.upstream;
  return new Map([
    ...(credential.kind === "certificate" ? [["upstream", credential.read().certPem] as const] : []),
    ...(serving === undefined ? [] : [["serving", serving.certPem] as const]),
    ...(localCa === undefined ? [] : [["local-ca", localCa] as const]),
  ]);
}

/** What people want to know of a certificate. */
export function certificateEntry(name: string, certPem: string): StatusReport["certificates"][number] {
  const { subject, validTo } = new X509Certificate(certPem);
  return { name, subject: subject.replaceAll("\n", ", "), notAfterMs: Date.parse(validTo) };
}
