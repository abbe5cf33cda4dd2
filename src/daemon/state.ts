/**
 * The state folder: opened before anything else is built, closed after
 * everything else has ended.
 */

import type { Log } from "../base/log.ts";
import { certificatesOf } from "../certificates/pem.ts";
import type { Store } from "../store/contract.ts";
import { openStore, type SqliteStore } from "../store/store.ts";
import type { DaemonOptions } from "./daemon.ts";
import type { Part } from "./part.ts";

/** Opens the store of the configured folder for the configured cluster; a folder that cannot be written costs the next start, not this one. */
export function openState({ config, clock, log }: DaemonOptions): SqliteStore {
  const store = openStore({ stateDir: config.stateDir, clock, log, maxBytes: config.limits.storeMaxBytes });
  forgetOtherCluster(store, config.upstream.caPem(), log);
  return store;
}

/** The store as a part. */
export function statePart(store: SqliteStore): Part {
  return { name: "store", stop: () => store.close() };
}

/** A value kept as text. */
export function textOf(bytes: Uint8Array | undefined): string | undefined {
  return bytes === undefined ? undefined : Buffer.from(bytes).toString("utf8");
}

/** Rows of another cluster must never answer for this one: the state folder belongs to whoever signed the API server. */
function forgetOtherCluster(store: Store, caPem: string, log: Log): void {
  const fingerprints = certificatesOf(caPem).map(({ fingerprint256 }) => fingerprint256);
  const known = textOf(store.getValue("cluster"))?.split(",");
  if (known !== undefined && !known.some((fingerprint) => fingerprints.includes(fingerprint))) {
    log.warn("state folder belongs to another cluster: its copies are dropped");
    for (const copy of store.copies()) copy.drop();
    for (const { key } of store.listResponses()) store.deleteResponse(key);
  }
  const now = fingerprints.join(",");
  if (known?.join(",") !== now) store.putValue("cluster", Buffer.from(now));
}
