/**
 * What can be read off the daemon's parts as a condition, in words: what is
 * so, what it means for the node, and the next step.
 */

import type { Finding } from "../base/conditions.ts";
import { formatDuration } from "../base/units.ts";
import { validityOf } from "../certificates/renewals.ts";
import type { StatusReport } from "../health/status-report.ts";
import type { Front, FrontGround } from "./front.ts";
import type { Ground } from "./ground.ts";
import { certificates } from "./report.ts";
import { sealingFinding } from "./state.ts";

/** The conditions that can be read off at any time; what happens is raised where it happens. */
export function watchConditions(ground: Ground, { uplink, copies, node }: FrontGround, front: Front): void {
  const { clock, conditions, store } = ground;
  conditions.watch("StoreInMemory", () => (store.isOthers ? undefined : storeFinding(store.status())));
  conditions.watch("CredentialRefused", () =>
    node.reconnect.isRefused || uplink.isRefused() ? CREDENTIAL_REFUSED : undefined,
  );
  conditions.watch("DataQuarantined", () => quarantineFinding(store.status().quarantined));
  conditions.watch("SealingKeyUnusable", () => sealingFinding(store));
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
  message: "The API server does not accept the node's own credential (401): what is kept goes on being served",
  next: "See kubectl --kubeconfig FILE auth whoami; renew the credential or join the node again",
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
const SOON_MS = 14 * 86_400_000;

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
  const { notBeforeMs, notAfterMs } = validityOf(certPem);
  const restMs = notAfterMs - nowMs;
  // One that lives for hours is renewed in its last third, and no trouble before.
  if (restMs >= Math.min(SOON_MS, (notAfterMs - notBeforeMs) / 10)) return undefined;
  const next =
    name === "upstream"
      ? "Renew it while the link is there (holdfast cert status says whose task that is); once it has ended, join the node again with kubeadm token create"
      : "See: holdfast cert status; then: holdfast cert rotate serving";
  return restMs < 0
    ? { reason: "Expired", message: `The ${name} certificate has expired`, next }
    : { reason: "ExpiresSoon", message: `The ${name} certificate ends in ${formatDuration(restMs)}`, next };
}
