/**
 * Whose state lies in the folder, and how one cluster's makes room for another's.
 *
 * A cluster is known by the certificates of its CA bundle: two bundles that
 * share one are the same cluster, so that a CA can be changed with the old and
 * the new side by side. A mistyped CA must cost nothing. So:
 *
 *   start      the file belongs to another cluster   -> it is not touched and not served;
 *                                                       what was set aside for this one is, else memory
 *   proven     an API server of this cluster answered -> the file goes aside, ours into its place
 *   back       the folder meets its old cluster again -> taken up from where it was set aside
 *
 *   STATE/other-clusters/FINGERPRINT/cache.db   the newest few; the key that seals stays the node's
 */

import { Database, constants } from "bun:sqlite";
import { existsSync, mkdirSync, readdirSync, renameSync, rmSync, statSync } from "node:fs";
import { join } from "node:path";
import { FILE, SUFFIXES, syncFolder } from "./place.ts";
import { checkSchema } from "./schema.ts";
import { sumsOf } from "./resum.ts";
import type { Sealer } from "./seal.ts";
import { readValue } from "./values.ts";

const FOLDER = "other-clusters";
/** How many other clusters' states are kept; then the one that was set aside first goes. */
const KEPT = 3;
const VALUE = "cluster";

/** A CA bundle: SHA-256 fingerprints of its certificates. */
export type Cluster = readonly string[];

/** The name of the value that says whose the file is. */
export const CLUSTER_VALUE = VALUE;

/** Whether two bundles are of one cluster. */
export function isSameCluster(one: Cluster, other: Cluster): boolean {
  return one.some((fingerprint) => other.includes(fingerprint));
}

/** Whose a database is; undefined where nothing says so. @throws what SQLite says. */
export function ownerOf(database: Database, sealer: Sealer): Cluster | undefined {
  const sums = sumsOf(database, sealer);
  const value = sums === undefined ? undefined : readValue(database, VALUE, sealer, sums);
  return typeof value !== "object" ? undefined : Buffer.from(value).toString("utf8").split(",");
}

/** Whose the file of a folder is, without touching it. */
export function ownerIn(folder: string, sealer: Sealer): Cluster | undefined {
  let database: Database | undefined;
  try {
    database = openUntouched(join(folder, FILE));
    checkSchema(database);
    return ownerOf(database, sealer);
  } catch {
    // None, damaged, a newer program's, a stranger's: whoever opens it in earnest says so.
    return undefined;
  } finally {
    database?.close();
  }
}

/** Without a log there is nothing beside the file, and nothing is to come beside it by our looking. */
function openUntouched(path: string): Database {
  const logBytes = statSync(`${path}-wal`, { throwIfNoEntry: false })?.size ?? 0;
  if (logBytes > 0) return new Database(path, { readonly: true });
  const flags = constants.SQLITE_OPEN_READONLY | constants.SQLITE_OPEN_URI;
  return new Database(`file:${encodeURI(path)}?immutable=1`, flags);
}

/** Where this cluster's state was set aside; the newest, should there be two. */
export function setAsideOf(stateDir: string, cluster: Cluster, sealer: Sealer): string | undefined {
  return foldersIn(stateDir).findLast((folder) => {
    const owner = ownerIn(folder, sealer);
    return owner !== undefined && isSameCluster(owner, cluster);
  });
}

/** Sets the file in the folder aside whole, and lets the oldest beyond the bound go. @throws what the disk says. */
export function setClusterAside(stateDir: string, owner: Cluster): void {
  const parent = join(stateDir, FOLDER);
  const name = (owner[0] ?? "").replaceAll(/[^0-9A-Fa-f]/g, "").slice(0, 16) || "unknown";
  let folder = join(parent, name);
  for (let n = 2; existsSync(folder); n++) folder = join(parent, `${name}-${n}`);
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  move(stateDir, folder);
  for (const old of foldersIn(stateDir).slice(0, -KEPT)) rmSync(old, { recursive: true, force: true });
}

/** Takes what was set aside back into the folder, where no file is. @throws what the disk says. */
export function takeUp(folder: string, stateDir: string): void {
  move(folder, stateDir);
  rmSync(folder, { recursive: true, force: true });
}

/** The log goes with its file and after it: one without the other is an older moment, never a mixture. */
function move(from: string, to: string): void {
  for (const suffix of SUFFIXES) {
    const path = join(from, FILE + suffix);
    if (existsSync(path)) renameSync(path, join(to, FILE + suffix));
  }
  syncFolder(to);
  syncFolder(from);
}

/** Folders with a file in them, in the order in which they were set aside. */
function foldersIn(stateDir: string): string[] {
  const parent = join(stateDir, FOLDER);
  if (!existsSync(parent)) return [];
  const found = readdirSync(parent)
    .map((name) => join(parent, name))
    .filter((folder) => existsSync(join(folder, FILE)))
    .map((folder) => ({ folder, ms: statSync(folder).mtimeMs }));
  return found.sort((a, b) => a.ms - b.ms || (a.folder < b.folder ? -1 : 1)).map(({ folder }) => folder);
}
