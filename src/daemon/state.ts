/**
 * The state folder: opened before anything else is built, closed after
 * everything else has ended.
 */

import type { Finding } from "../base/conditions.ts";
import { certificatesOf } from "../certificates/pem.ts";
import type { Config } from "../config/config.ts";
import type { Cluster } from "../store/clusters.ts";
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
  return openStore({
    stateDir: config.stateDir,
    clock,
    log,
    maxBytes: config.limits.storeMaxBytes,
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

/** The store as a part. */
export function statePart(store: SqliteStore): Part {
  return { name: "store", stop: () => store.close() };
}

/** A value kept as text. */
export function textOf(bytes: Uint8Array | undefined): string | undefined {
  return bytes === undefined ? undefined : Buffer.from(bytes).toString("utf8");
}
