/**
 * Follows a collection: a list, then a watch from where the list stands, for ever.
 *
 * As client-go's reflector does: a watch that breaks begins again after the
 * last version that was seen, by an event or a bookmark, and never where the
 * broken one began, for that would tell old changes as new ones. Only a version
 * that the API server knows no more (410) is listed anew; what the new list
 * lacks is gone, which no event has said.
 *
 * Before a broken watch goes on, the collection says where it stands: a version
 * below the last one seen means that the cluster was set back (etcd restored),
 * and a watch from a version that is yet to come would be silent and look well.
 *
 * What cannot be followed is tried later and later, never in step with other
 * replicas. Until a new list is whole the old picture stands: the guard would
 * rather judge by what was true a moment ago than by half a picture.
 */

import type { Clock } from "../base/clock.ts";
import { EdgeError } from "../base/errors.ts";
import type { Log } from "../base/log.ts";
import { compareResourceVersions } from "../kube/resource-version.ts";
import { ApiError, type Collections } from "./api.ts";

/** What is followed, and who is told. */
export interface FollowOptions {
  readonly client: Collections;
  readonly clock: Clock;
  readonly log: Log;
  readonly signal: AbortSignal;
  /** For messages: "nodes". */
  readonly what: string;
  /** Of the collection, with selectors in its query if need be. */
  readonly path: string;
  /** A list is about to come: what is not put until `listed` is gone. */
  readonly listing: () => void;
  readonly put: (object: unknown) => void;
  readonly listed: () => void;
  readonly gone: (object: unknown) => void;
  /** The cluster has gone back in time; the collection is listed anew. */
  readonly wentBack?: () => void;
  /** A watch is about to begin: what comes from it may have happened before. */
  readonly watching?: () => void;
  /** Aborted when the collection has to be listed anew at once; asked for at every watch. */
  readonly anew?: () => AbortSignal;
  /** In [0, 1). */
  readonly random?: () => number;
}

/** Bounds the peak of memory: a page is held as text and as objects. */
const PAGE = 100;
const FIRST_RETRY_MS = 500;
/** Soon enough to meet a cluster that was set back before it has caught up with what we saw. */
const LAST_RETRY_MS = 8_000;

/** How far the collection has been told; undefined: a list has to come first. */
interface Place {
  version: string | undefined;
}

/** Runs until the signal comes. */
export async function follow(options: FollowOptions): Promise<void> {
  const { clock, log, signal, what, random = Math.random } = options;
  const place: Place = { version: undefined };
  let retryMs = FIRST_RETRY_MS;
  let isBroken = false;
  while (!signal.aborted) {
    const before = place.version;
    try {
      if (isBroken) await checkHistory(options, place);
      isBroken = false;
      place.version ??= await readAll(options);
      if (place.version !== undefined) await readOn(options, place, place.version);
      retryMs = FIRST_RETRY_MS;
    } catch (error) {
      if (signal.aborted) return;
      isBroken = true;
      const status = error instanceof ApiError ? error.status : 0;
      // A watch that told something was no failure, however it ended.
      if (before !== undefined && place.version !== before) retryMs = FIRST_RETRY_MS;
      // A link that breaks says nothing against the version; a server that knows it no more does.
      if (status === 410 || !(error instanceof ApiError)) place.version = undefined;
      if (status !== 410) log.warn(`cannot follow ${what}; trying again`, { reason: describe(error) });
      await pause(clock, retryMs * (0.5 + random()), signal);
      retryMs = Math.min(LAST_RETRY_MS, retryMs * 2);
    }
  }
}

/** Forgets the place when the collection stands before it. */
async function checkHistory({ client, path, wentBack }: FollowOptions, place: Place): Promise<void> {
  if (place.version === undefined) return;
  const { resourceVersion } = await client.list(path, { limit: 1 });
  if (resourceVersion === "" || compareResourceVersions(resourceVersion, place.version) >= 0) return;
  place.version = undefined;
  wentBack?.();
}

/** @returns the list's version; undefined when it counts no more. */
async function readAll({ client, path, anew, listing, put, listed }: FollowOptions): Promise<string | undefined> {
  const again = anew?.();
  listing();
  let next: string | undefined;
  for (;;) {
    const page = await client.list(path, { limit: PAGE, next });
    if (again?.aborted === true) return undefined;
    for (const item of page.items) put(item);
    next = page.next;
    if (next !== undefined) continue;
    listed();
    return page.resourceVersion;
  }
}

/** Tells what comes and moves the place along; nothing counts any more once `anew` has come. */
async function readOn(options: FollowOptions, place: Place, since: string): Promise<void> {
  const { client, path, signal, put, gone, anew, watching } = options;
  const again = anew?.();
  const until = again === undefined ? signal : AbortSignal.any([signal, again]);
  watching?.();
  try {
    for await (const { type, object } of client.watch(path, since, until)) {
      if (again?.aborted === true) break;
      if (type === "ADDED" || type === "MODIFIED") put(object);
      else if (type === "DELETED") gone(object);
      place.version = versionOf(object) ?? place.version;
    }
  } finally {
    if (again?.aborted === true) place.version = undefined;
  }
}

function versionOf(object: unknown): string | undefined {
  return (object as { metadata?: { resourceVersion?: string } } | undefined)?.metadata?.resourceVersion;
}

/** Waits, or until the signal. */
export async function pause(clock: Clock, delayMs: number, signal: AbortSignal): Promise<void> {
  if (signal.aborted) return;
  const { promise, resolve } = Promise.withResolvers<void>();
  const cancel = clock.after(delayMs, resolve);
  signal.addEventListener("abort", () => resolve(), { once: true });
  await promise;
  cancel();
}

/** Ours in full; of others the kind alone, for they may quote what they choked on. */
export function describe(error: unknown): string {
  if (error instanceof EdgeError) return error.message;
  return error instanceof Error ? error.name : typeof error;
}
