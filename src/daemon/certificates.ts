/**
 * Certificates are renewed while we run: local ones are looked at once a
 * minute, the node's client certificate by its own clock (`node-client.ts`).
 */

import { formatDuration } from "../base/units.ts";
import type { Log } from "../base/log.ts";
import { clientSubjectOf, isNode } from "../certificates/client-request.ts";
import { NodeClient } from "../certificates/node-client.ts";
import { OwnPair } from "../certificates/own-pair.ts";
import type { Config } from "../config/config.ts";
import { askSmall } from "../node/own-node.ts";
import type { Listeners } from "./front.ts";
import { UnreachableError } from "../uplink/scope-source.ts";
import type { Ground } from "./ground.ts";
import type { Part } from "./part.ts";
import type { Uplink } from "./uplink.ts";

/** A clock that jumps, by NTP or by hand, is noticed within this time. */
const LOOK_EVERY_MS = 60_000;
const ASK_DEADLINE_MS = 10_000;

/** The configuration with the pair that is ours to renew, where one lies there or is to be. */
export function withOwnPair(config: Config, log: Log): { readonly config: Config; readonly ownPair?: OwnPair } {
  const { credential } = config.upstream;
  if (credential.kind !== "certificate" || !isNode(clientSubjectOf(credential.read().certPem))) return { config };
  const ownPair = new OwnPair(config.stateDir, credential, log);
  if (!config.rotatesNodeClient && !ownPair.isKept) return { config };
  return { config: { ...config, upstream: { ...config.upstream, credential: ownPair.credential } }, ownPair };
}

/** Everything that is renewed, as a part. */
export interface Certificates extends Part {
  /** The node's client certificate; undefined where it is not ours to renew. */
  readonly nodeClient: NodeClient | undefined;
}

/** Builds it. */
export function buildCertificates(ground: Ground, uplink: Uplink, listeners: Listeners): Certificates {
  const { clock, conditions, renewals } = ground;
  const { link } = uplink;
  const nodeClient = buildNodeClient(ground, uplink);
  conditions.watch("ClockBehind", () => clockFinding(renewals.clockBehindOf, clock.nowMs()));
  const look = () => {
    // The link stands by TLS: the API server's certificate holds at this time.
    if (link.isOnline()) renewals.trust();
    if (listeners.local?.renewDue() === true) listeners.renewed();
  };
  let cancel = () => {};
  const schedule = () => {
    cancel = clock.after(LOOK_EVERY_MS, () => {
      look();
      schedule();
    });
  };
  link.onChange((isOnline) => {
    if (!isOnline) return;
    renewals.trust();
    nodeClient?.nudge();
  });
  return {
    name: "certificates",
    nodeClient,
    start() {
      schedule();
      nodeClient?.start();
    },
    drain() {
      cancel();
      nodeClient?.stop();
    },
  };
}

function buildNodeClient(ground: Ground, { link, upstream, ownCredential }: Uplink): NodeClient | undefined {
  const { clock, conditions, config, log, ownPair: pair, random, renewals, signal } = ground;
  if (pair === undefined) return undefined;
  return new NodeClient({
    stateDir: config.stateDir,
    pair,
    renewals,
    clock,
    random,
    log,
    isOnline: () => link.isOnline(),
    async ask(method, target, body) {
      const request = { method, target, accept: "application/json", ...(body === undefined ? {} : { body }) };
      const answer = await askSmall(upstream, request, ownCredential(), ASK_DEADLINE_MS, signal);
      // A 404 that is not the API server's own word takes no request back.
      if (answer.word === "unsaid") throw new UnreachableError("Cannot ask for a certificate: nothing is said");
      return answer;
    },
    onFinding(finding) {
      if (finding === undefined) conditions.clear("CertificateNotRenewed");
      else conditions.raise("CertificateNotRenewed", finding);
    },
    onRenewed: () => link.suspect(),
  });
}

function clockFinding(trustedAtMs: number | undefined, nowMs: number) {
  if (trustedAtMs === undefined) return undefined;
  return {
    reason: "BeforeLastTrustedTime",
    message: `The clock is ${formatDuration(trustedAtMs - nowMs)} behind the last time that could be trusted: certificates are judged by that`,
    next: "Set it: timedatectl set-time, or look after NTP: timedatectl timesync-status",
  };
}
