/**
 * The state folder: opened before anything else is built, closed after
 * everything else has ended.
 */

import type { Finding } from "../base/conditions.ts";
import { certificatesOf } from "../certificates/pem.ts";
import type { Config } from "../config/config.ts";
import { nodeOf } from "../node/own-node.ts";
import type { Cluster } from "../store/clusters.ts";
import { credentialProblem } from "../store/seal.ts";
import { openStore, type SqliteStore } from "../store/store.ts";
import type { DaemonOptions } from "./daemon.ts";
import type { Part } from "./part.ts";

/**
 * Opens the store of the configured folder for the configured cluster; a folder that cannot be written costs the next start, not this one.
 *
 * @throws {StateFolderLockedError} when another process has the folder: nothing of it was touched.
 */
export function openState({ config, clock, log }: DaemonOptions): SqliteStore {
  const cluster = clusterOf(config);
  const own = nodeOf(config.upstream.credential)?.principal;
  return openStore({
    stateDir: config.stateDir,
    clock,
    log,
    maxBytes: config.limits.storeMaxBytes,
    isOwn: (principal) => principal === own,
    ...(cluster.length === 0 ? {} : { cluster }),
  });
}

/** The configured cluster, by its CA bundle as it is now; empty where there is none of its own. */
export function clusterOf({ upstream }: Config): Cluster {
  return certificatesOf(upstream.caPem()).map(({ fingerprint256 }) => fingerprint256);
}

/** What a person is told while the folder holds another cluster's state. */
export function clusterFinding(store: SqliteStore): Finding | undefined {
  return store.isOthers
    ? {
        reason: "CaDiffers",
        message:
          "the state folder holds what another cluster's API server said: nothing of it is served, and it is left as it is until an API server of the configured cluster has answered",
        next: "Check the certificate authority in the kubeconfig",
      }
    : undefined;
}

/**
 * The store as a part. A folder that could not be written from the start has
 * never kept anything: whoever waits for readiness must not rely on it. One
 * that fails later is a condition alone, for what was kept goes on being served.
 */
export function statePart(store: SqliteStore): Part {
  let wasOnDisk = false;
  return {
    name: "store",
    check() {
      const { mode, reason } = store.status();
      wasOnDisk ||= mode === "disk";
      if (wasOnDisk) return undefined;
      return store.isOthers
        ? "the state folder is another cluster's: nothing of it is served, and nothing outlives a restart"
        : `the state folder cannot be written (${reason}): nothing outlives a restart`;
    },
    stop: () => store.close(),
  };
}

/** What a person is told of a sealing credential that is there and no use. */
export function sealingFinding(store: SqliteStore): Finding | undefined {
  const problem = credentialProblem();
  if (problem === undefined) return undefined;
  const { sealing } = store.status();
  return {
    reason: "CredentialUnusable",
    message: `The credential holdfast-seal-key is not used: ${problem}; Secrets are sealed with a key ${sealing === "file" ? "in the state folder, which does not stop a thief of the whole card" : "that ends with this process"}`,
    next: "Make one: head -c 32 /dev/urandom | systemd-creds encrypt --name=holdfast-seal-key - /etc/credstore.encrypted/holdfast-seal-key; then systemctl restart holdfast",
  };
}

/** A value kept as text. */
export function textOf(bytes: Uint8Array | undefined): string | undefined {
  return bytes === undefined ? undefined : Buffer.from(bytes).toString("utf8");
}
