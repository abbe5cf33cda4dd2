/**
 * The copy of a database from before an upgrade, so that a rollback keeps what is known.
 *
 * A newer program brings the file to its own format in place, and an older one
 * cannot read that. So before it does it leaves a copy under the format's
 * number, cache.db.schema-N; the older program, back again, sets the newer file
 * aside under its number and takes up the one with its own. What it then knows
 * is as old as the upgrade: old is allowed, nothing is not.
 *
 * At most one copy for each of two formats, none older than a month, and none
 * where the disk has no room for two more of its size.
 */

import { Database } from "bun:sqlite";
import { existsSync, readdirSync, renameSync, rmSync, statfsSync, statSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import type { Log } from "../base/log.ts";
import { SCHEMA_VERSION, pragma } from "./schema.ts";

const KEPT = 2;
const MAX_AGE_MS = 30 * 86_400_000;

/** Where the file of a format waits. */
export function formerPath(path: string, version: number): string {
  return `${path}.schema-${version}`;
}

/** Leaves a copy where the file is of an older format. What goes wrong is said and costs the rollback, nothing else. */
export function keepFormer(path: string, nowMs: number, log: Log): void {
  try {
    forget(path, nowMs);
    if (existsSync(path) && statSync(path).isFile()) copyOlder(path, log);
  } catch (error) {
    log.warn("no copy from before the upgrade is kept: a rollback would start empty", {
      reason: String((error as { code?: unknown }).code ?? (error as Error).message),
    });
  }
}

function copyOlder(path: string, log: Log): void {
  const database = new Database(path, { readwrite: true });
  try {
    const version = pragma(database, "user_version");
    if (version === 0 || version >= SCHEMA_VERSION) return;
    const { bavail, bsize } = statfsSync(dirname(path));
    if (bavail * bsize < 2 * statSync(path).size) throw new Error("no room");
    const copy = formerPath(path, version);
    rmSync(`${copy}.new`, { force: true });
    database.run("VACUUM INTO ?", [`${copy}.new`]);
    renameSync(`${copy}.new`, copy);
    log.info("a copy from before the upgrade is kept for a rollback", { as: basename(copy) });
  } finally {
    database.close();
  }
}

/** Puts the waiting file of our own format in place. @returns whether there was one. */
export function takeUpFormer(path: string): boolean {
  const ours = formerPath(path, SCHEMA_VERSION);
  if (!existsSync(ours)) return false;
  renameSync(ours, path);
  return true;
}

function forget(path: string, nowMs: number): void {
  const found = readdirSync(dirname(path))
    .filter((name) => name.startsWith(`${basename(path)}.schema-`) && !/-(wal|shm)$/.test(name))
    .map((name) => ({ place: join(dirname(path), name), ms: statSync(join(dirname(path), name)).mtimeMs }))
    .sort((a, b) => b.ms - a.ms);
  for (const [index, { place, ms }] of found.entries())
    if (index >= KEPT || nowMs - ms > MAX_AGE_MS)
      for (const suffix of ["", "-wal", "-shm"]) rmSync(place + suffix, { recursive: true, force: true });
}
