/**
 * What people and programs learn of the daemon: health, metrics, the admin socket.
 */

import { hostPortText } from "../base/address.ts";
import type { Scopes } from "../cache/scopes.ts";
import { nodeView, viewQuery } from "../front/node-view.ts";
import { startAdmin } from "../health/admin.ts";
import { startHealth, type HealthServer } from "../health/health.ts";
import type { StatusReport } from "../health/status-report.ts";
import type { Certificates } from "./certificates.ts";
import type { Coverage } from "./coverage.ts";
import type { FrontGround, Front } from "./front.ts";
import type { Ground } from "./ground.ts";
import { horizonOf } from "./horizon.ts";
import type { PagePin } from "./page.ts";
import type { Part, Parts } from "./part.ts";
import type { Rehearsals } from "./rehearsal.ts";
import type { Tunnel } from "./tunnel.ts";
import { reportStatus } from "./report.ts";

/** The health listener, with the checks of all parts. */
export class Health implements Part {
  readonly name = "health";
  #server: HealthServer | undefined;

  constructor(
    private readonly ground: Ground,
    private readonly parts: Parts,
    private readonly status: () => StatusReport,
  ) {}

  /** The actual port; 0 before the start. */
  get port(): number {
    return this.#server?.port ?? 0;
  }

  /** @throws {HealthListenError} naming the address. */
  start(): void {
    const { config, metrics } = this.ground;
    this.#server = startHealth({
      listen: config.healthListen,
      checks: this.parts.checks,
      metrics: metrics.registry,
      beforeScrape: () => metrics.refresh(this.status()),
    });
  }

  stop(): void {
    this.#server?.stop();
  }
}

/** Our own credential: refused, or ended while it is needed. Expired and cut is no failure: what is kept is served. */
export function certificatePart({ conditions }: Ground, { uplink }: FrontGround): Part {
  return {
    name: "certificate",
    check() {
      const found = conditions
        .all()
        .find(
          ({ type, subject, reason }) =>
            type === "CredentialRefused" ||
            (type === "CertificateExpiring" &&
              subject === "upstream" &&
              reason === "Expired" &&
              uplink.link.isOnline()),
        );
      return found === undefined ? undefined : `${found.reason}: ${found.message}`;
    },
  };
}

/** What the admin socket acts on. */
export interface AdminGround {
  readonly scopes: Scopes;
  readonly coverage: Coverage;
  readonly rehearsals: Rehearsals;
  readonly pin: PagePin;
}

/** The admin socket; without one `holdfast status` does not work, the node does. */
export function adminPart(
  { config, log, store }: Ground,
  status: () => StatusReport,
  { scopes, coverage, rehearsals, pin }: AdminGround,
  { act }: Certificates,
): Part {
  let admin: { stop(): void } | undefined;
  const { adminSocketPath: path } = config;
  return {
    name: "admin",
    async start() {
      if (path === undefined) return;
      const objects = (query: URLSearchParams) => nodeView(scopes, viewQuery(query));
      admin = await startAdmin({
        path,
        status,
        coverage: () => coverage.now(),
        rehearse: (forMs, isForced) => rehearsals.begin(forMs, isForced),
        renewPin: () => ({
          pin: pin.renew(),
          ...(config.page === undefined ? {} : { address: hostPortText(config.page) }),
        }),
        flush: () => store.settle(),
        objects,
        certificates: act,
        log,
      });
    },
    drain: () => rehearsals.end("stop"),
    stop: () => admin?.stop(),
  };
}

/** Makes status reports of this moment. */
export function statusOf(
  ground: Ground,
  over: FrontGround,
  front: Front,
  { renewal }: Certificates,
  tunnel: Tunnel,
): () => StatusReport {
  const { uplink, copies, node } = over;
  const horizon = () =>
    horizonOf(ground, { local: front.listeners.local, seen: over.callers.seen(), tokenEnds: node.tokens.ends() });
  return () =>
    reportStatus({
      ...ground,
      ...uplink,
      ...copies,
      nowMs: ground.clock.nowMs(),
      serving: front.listeners.serving,
      localCa: front.listeners.local?.authority.certPem,
      renewal,
      tunnel: tunnel.state(),
      horizon,
      offline: {
        overlays: node.overlays.size,
        eventsWaiting: node.events.size,
        eventsDropped: node.events.dropped,
        expiredTokensServed: node.tokens.servedExpired,
        agentChanges: { waiting: node.agents.waiting, sent: node.agents.sent, dropped: node.agents.dropped },
      },
    });
}
