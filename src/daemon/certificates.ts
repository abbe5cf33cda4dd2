/**
 * Certificates are renewed while we run: local ones are looked at once a
 * minute, the node's client certificate by its own clock (`node-client.ts`).
 */

import { existsSync, rmSync } from "node:fs";
import { formatDuration } from "../base/units.ts";
import type { Log } from "../base/log.ts";
import { clientSubjectOf, isNode } from "../certificates/client-request.ts";
import { kubeletServingPath, kubeletServingRole } from "../certificates/kubelet-serving.ts";
import { nodeClientRole } from "../certificates/node-client.ts";
import { OwnPair } from "../certificates/own-pair.ts";
import { Rotation, type RotationRole } from "../certificates/rotation.ts";
import type { LocalCertificates } from "../certificates/local.ts";
import type { Config } from "../config/config.ts";
import type { AdminOptions, CertificateAnswer } from "../health/admin.ts";
import { askSmall } from "../node/own-node.ts";
import type { Listeners } from "./front.ts";
import { UnreachableError } from "../uplink/scope-source.ts";
import type { Ground } from "./ground.ts";
import type { Part } from "./part.ts";
import type { StatusSources } from "./report.ts";
import type { Uplink } from "./uplink.ts";

/** A clock that jumps, by NTP or by hand, is noticed within this time. */
const LOOK_EVERY_MS = 60_000;
const ASK_DEADLINE_MS = 10_000;
/** Who rotates by hand waits this long for the signer. */
const ROTATION_PATIENCE_MS = 5_000;

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
  /** Who renews a certificate of the report, and when. */
  readonly renewal: StatusSources["renewal"];
  /** Rotates or revokes one, for the admin socket. */
  readonly act: AdminOptions["certificates"];
}

/** Builds it. */
export function buildCertificates(ground: Ground, uplink: Uplink, listeners: Listeners): Certificates {
  const { clock, conditions, renewals } = ground;
  const { link } = uplink;
  const nodeClient = buildNodeClient(ground, uplink);
  const kubeletServing = buildKubeletServing(ground, uplink);
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
    kubeletServing?.nudge();
  });
  uplink.place.onChange(() => kubeletServing?.nudge());
  return {
    name: "certificates",
    renewal: (name) => renewalOf(name, listeners.local, nodeClient),
    act: (action, name) => act({ action, name, listeners, nodeClient }),
    start() {
      schedule();
      nodeClient?.start();
      kubeletServing?.start();
    },
    drain() {
      cancel();
      nodeClient?.stop();
      kubeletServing?.stop();
    },
  };
}

function renewalOf(
  name: string,
  local: LocalCertificates | undefined,
  nodeClient: Rotation | undefined,
): ReturnType<StatusSources["renewal"]> {
  if (name === "upstream")
    return nodeClient === undefined
      ? { renewedBy: "who writes the kubeconfig's files" }
      : { renewedBy: "this node, through the API server", renewAtMs: nodeClient.dueMs };
  const renewAtMs = name === "serving" ? local?.servingDueMs : local?.authorityDueMs;
  return { renewedBy: "this node", ...(renewAtMs === undefined ? {} : { renewAtMs }) };
}

interface Asked {
  readonly action: string;
  readonly name: string;
  readonly listeners: Listeners;
  readonly nodeClient: Rotation | undefined;
}

async function act({ action, name, listeners, nodeClient }: Asked): Promise<CertificateAnswer> {
  const { local } = listeners;
  const isRevoked = action === "revoke";
  if (name === "node-client") return isRevoked ? NO_REVOCATION : rotateNodeClient(nodeClient);
  if (local === undefined || (action !== "rotate" && !isRevoked) || (name !== "serving" && name !== "local-ca"))
    return { status: 409, message: "Cannot do that: nothing of that name is open to it" };
  if (name === "serving" && isRevoked) return SERVING_NOT_REVOKED;
  const before = local.serving.certPem;
  if (name === "serving") local.renewServing();
  else local.renewAuthority({ isRevoked });
  if (local.serving.certPem === before)
    return { status: 409, message: "Cannot renew the local CA: its files cannot be written; see: df -h" };
  listeners.renewed();
  return {
    status: 200,
    message: isRevoked
      ? "The local CA is revoked: clients trust nobody until they have read local-ca.crt again; next: systemctl restart kubelet"
      : `The ${name === "serving" ? "serving certificate" : "local CA"} is renewed; open connections go on`,
  };
}

async function rotateNodeClient(nodeClient: Rotation | undefined): Promise<CertificateAnswer> {
  if (nodeClient === undefined) return NOT_OURS;
  const outcome = await nodeClient.rotate(ROTATION_PATIENCE_MS);
  if (outcome === "renewed") return { status: 200, message: "The node's certificate is renewed" };
  const { finding, pendingName } = nodeClient;
  if (outcome === "waiting")
    return {
      status: 202,
      message: `The request ${pendingName ?? ""} waits for the link or for approval; next: kubectl certificate approve ${pendingName ?? "NAME"}`,
    };
  return {
    status: 409,
    message: finding === undefined ? "Not renewed yet: the link is gone" : `${finding.message}; ${finding.next ?? ""}`,
  };
}

const NOT_OURS: CertificateAnswer = {
  status: 409,
  message:
    "The node's certificate is not Holdfast's to renew: who writes the kubeconfig's files does it (kubelet: rotateCertificates); next: certificates: {rotateNodeClient: true} in the configuration",
};
const NO_REVOCATION: CertificateAnswer = {
  status: 409,
  message:
    "Kubernetes revokes no client certificate: it is good until its end, or until the cluster's CA is replaced; next, on the control plane: kubectl delete node NAME takes what the node may read and write",
};
const SERVING_NOT_REVOKED: CertificateAnswer = {
  status: 409,
  message: "A served certificate is revoked with its CA alone; next: holdfast cert revoke local-ca",
};

function buildNodeClient(ground: Ground, uplink: Uplink): Rotation | undefined {
  const { conditions, ownPair: pair, renewals } = ground;
  if (pair === undefined) return undefined;
  return rotationOf(ground, uplink, nodeClientRole(pair, renewals), {
    onFinding(finding) {
      if (finding === undefined) conditions.clear("CertificateNotRenewed");
      else conditions.raise("CertificateNotRenewed", finding);
    },
    onRenewed: () => uplink.link.suspect(),
  });
}

/** Kubelet's serving certificate, where the configuration wants one of us. */
function buildKubeletServing(ground: Ground, uplink: Uplink): Rotation | undefined {
  const { conditions, config, renewals } = ground;
  const { credential } = config.upstream;
  if (!config.servesKubelet) {
    dropKubeletServing(ground);
    return undefined;
  }
  if (credential.kind !== "certificate") return undefined;
  const role = kubeletServingRole({
    stateDir: config.stateDir,
    renewals,
    clientCertPem: () => credential.read().certPem,
    hosts: () => uplink.place.hosts(),
  });
  return rotationOf(ground, uplink, role, {
    onFinding(finding) {
      if (finding === undefined) conditions.clear("CertificateNotRenewed", role.name);
      else conditions.raise("CertificateNotRenewed", finding, role.name);
    },
    onRenewed() {},
  });
}

/** Kubelet goes back to its own, within a minute (bypass.sh): what nobody renews would end in its service. */
function dropKubeletServing({ config: { stateDir }, log }: Ground): void {
  const path = kubeletServingPath(stateDir);
  try {
    rmSync(path, { force: true });
  } catch (error) {
    // A folder that cannot be written has a condition of its own, and ends no start.
    if (existsSync(path)) log.warn("kubelet's serving certificate cannot be removed", { path, reason: String(error) });
  }
}

function rotationOf(
  ground: Ground,
  { link, upstream, ownCredential }: Uplink,
  role: RotationRole,
  told: Pick<ConstructorParameters<typeof Rotation>[0], "onFinding" | "onRenewed">,
): Rotation {
  const { clock, config, log, random, renewals, signal } = ground;
  return new Rotation({
    ...told,
    stateDir: config.stateDir,
    role,
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
