/**
 * What the API server has refused to a caller whom it had let in before, and
 * which copies that takes away.
 *
 * A caller must not read while cut what it could no longer read before. One
 * 403 tells of one request; what it means for the caller's other copies:
 *
 *   a list or watch refused    the same collection is forgotten, and every
 *                              wider one without selectors: who may list all
 *                              may list a part
 *   a get refused              that object answers no get, though a list that
 *                              is still allowed holds it, until a get is
 *                              allowed again
 *   either, of something kept  a permission was taken back: the API server is
 *                              asked once for every other list of that caller,
 *                              and recorded objects are not believed until
 *                              they are read again
 *
 * The caller hears of its refusal when all this has been done, so that no cut
 * falls in between. A client that asks again and again for what it never had
 * costs nothing: nothing of it is kept.
 *
 * Our own credential is exempt: the node authorizer refuses single objects as
 * pods come and go, and what runs must go on.
 *
 * Invariant: only the API server's own 200 takes a refusal back; a restart does not.
 */

import type { Clock } from "../base/clock.ts";
import type { Log } from "../base/log.ts";
import { PROOF_MS } from "./permissions.ts";
import { identityText, type ListedState, type ScopeIdentity, type Store } from "../store/contract.ts";
import { UpstreamRefusedError } from "../uplink/scope-source.ts";
import type { ScopeUpstream } from "../uplink/scope-upstream.ts";

/** One object as permissions name it; they know no versions. */
export interface AskedObject {
  readonly group: string;
  readonly resource: string;
  readonly namespace: string;
  readonly name: string;
}

/** What is kept for callers, as far as a refusal concerns it. */
export interface KeptCopies {
  all(): Iterable<{ readonly identity: ScopeIdentity; readonly listed: ListedState | undefined }>;
  forget(principal: string, matches: (identity: ScopeIdentity) => boolean): void;
}

/** What refusals act upon. */
export interface RefusalParts {
  readonly scopes: KeptCopies;
  readonly source: Pick<ScopeUpstream, "list" | "credentialOf">;
  readonly store: Store;
  readonly clock: Clock;
  readonly log: Log;
}

/** What is known of one principal; kept on disk. */
interface Refused {
  /** Recordings from before are in doubt, ms since the epoch. */
  doubtedAtMs: number;
  readonly objects: Set<string>;
}

const VALUE_PREFIX = "refusals/";
const MAX_PRINCIPALS = 1_024;
const MAX_OBJECTS = 512;
const MAX_PROOFS = 4_096;
const ASKED_AT_ONCE = 8;
/** The refusal waits for this at most. */
const ASK_DEADLINE_MS = 1_500;

/** Remembers refusals and draws their consequences. */
export class Refusals {
  #refused = new Map<string, Refused>();
  #allowedAtMs = new Map<string, number>();
  #doubting = new Map<string, Promise<void>>();

  constructor(private readonly parts: RefusalParts) {
    for (const name of parts.store.valueNames(VALUE_PREFIX)) {
      const read = readRefused(parts.store.getValue(name));
      if (read !== undefined) this.#refused.set(name.slice(VALUE_PREFIX.length), read);
    }
  }

  /** Whether a get of this object was refused, and not allowed since. */
  isRefused(principal: string, info: AskedObject): boolean {
    return this.#refused.get(principal)?.objects.has(objectOf(info)) === true;
  }

  /** Recordings of objects count only if they are younger than this, ms since the epoch. */
  doubtedAtMs(principal: string): number {
    return this.#refused.get(principal)?.doubtedAtMs ?? 0;
  }

  /** Whether the API server allowed this very get within ten minutes. */
  isProven(principal: string, info: AskedObject): boolean {
    const atMs = this.#allowedAtMs.get(`${principal}\n${objectOf(info)}`);
    return atMs !== undefined && this.parts.clock.monotonicMs() - atMs < PROOF_MS;
  }

  /** The API server answered a get with the object. */
  allowed(principal: string, info: AskedObject): void {
    const key = `${principal}\n${objectOf(info)}`;
    this.#allowedAtMs.delete(key);
    if (this.#allowedAtMs.size >= MAX_PROOFS) this.#allowedAtMs.delete(this.#allowedAtMs.keys().next().value!);
    this.#allowedAtMs.set(key, this.parts.clock.monotonicMs());
    if (this.#refused.get(principal)?.objects.delete(objectOf(info)) === true) this.#save(principal);
  }

  /**
   * A get was refused.
   *
   * @param isKept whether a copy would have answered it.
   * @returns when the caller may hear of it.
   */
  async objectRefused(principal: string, info: AskedObject, isKept: boolean): Promise<void> {
    this.#allowedAtMs.delete(`${principal}\n${objectOf(info)}`);
    if (!isKept || this.#isOurs(principal) || this.isRefused(principal, info)) return;
    const refused = this.#of(principal);
    if (refused.objects.size >= MAX_OBJECTS) {
      // More than can be remembered: then nothing is left that could answer them.
      this.parts.scopes.forget(principal, () => true);
      refused.objects.clear();
    }
    refused.objects.add(objectOf(info));
    await this.#doubt(principal, refused);
  }

  /**
   * A list or watch was refused.
   *
   * @param isScopes a scope's own, which ends that scope by itself.
   * @returns when the caller may hear of it.
   */
  async collectionRefused(identity: ScopeIdentity, isScopes = false): Promise<void> {
    const { scopes } = this.parts;
    const { principal } = identity;
    const isMeant = (other: ScopeIdentity) => other.principal === principal && isWithin(identity, other);
    const wasAllowed = [...scopes.all()].some((scope) => isMeant(scope.identity) && scope.listed !== undefined);
    const own = isScopes ? identityText(identity) : undefined;
    scopes.forget(principal, (other) => isMeant(other) && identityText(other) !== own);
    if (wasAllowed && !this.#isOurs(principal)) await this.#doubt(principal, this.#of(principal), own);
    else await this.#doubting.get(principal);
  }

  /** Something was taken back: asks what else was, but for one list that was refused itself. */
  async #doubt(principal: string, refused: Refused, except?: string): Promise<void> {
    refused.doubtedAtMs = this.parts.clock.nowMs();
    this.#save(principal);
    const known = this.#doubting.get(principal);
    const asking = Promise.all([known, this.#askAll(principal, except)]).then(() => {});
    this.#doubting.set(principal, asking);
    await asking;
    if (this.#doubting.get(principal) === asking) this.#doubting.delete(principal);
  }

  async #askAll(principal: string, except: string | undefined): Promise<void> {
    const { clock, log, scopes, source } = this.parts;
    if (source.credentialOf(principal) === undefined) return;
    const asked = [...scopes.all()].filter(
      ({ identity, listed }) =>
        identity.principal === principal && listed !== undefined && identityText(identity) !== except,
    );
    const deadline = new AbortController();
    const cancel = clock.after(ASK_DEADLINE_MS, () => deadline.abort(new Error("no answer in time")));
    let next = 0;
    let forgotten = 0;
    const askOn = async () => {
      for (let scope = asked[next++]; scope !== undefined; scope = asked[next++]) {
        if ((await this.#status(scope, deadline.signal)) !== 403) continue;
        const { identity } = scope;
        scopes.forget(principal, (other) => isWithin(identity, other));
        forgotten++;
      }
    };
    await Promise.all(Array.from({ length: ASKED_AT_ONCE }, askOn));
    cancel();
    log.info("a permission was taken back, the caller's other lists were asked for", {
      asked: asked.length,
      forgotten,
    });
  }

  async #status({ identity }: { readonly identity: ScopeIdentity }, signal: AbortSignal): Promise<number | undefined> {
    try {
      const page = await this.parts.source.list(identity, { limit: 1, continueToken: "" }, signal);
      for await (const _ of page.batches) break;
      return 200;
    } catch (error) {
      // Where the link broke nothing was refused.
      return error instanceof UpstreamRefusedError ? error.status : undefined;
    }
  }

  #isOurs(principal: string): boolean {
    return this.parts.source.credentialOf(principal)?.id === "own";
  }

  #of(principal: string): Refused {
    let refused = this.#refused.get(principal);
    if (refused === undefined) {
      if (this.#refused.size >= MAX_PRINCIPALS) this.#giveUp(this.#refused.keys().next().value!);
      this.#refused.set(principal, (refused = { doubtedAtMs: 0, objects: new Set() }));
    }
    return refused;
  }

  /** Refusals are forgotten with all that they keep from being read. */
  #giveUp(principal: string): void {
    this.parts.scopes.forget(principal, () => true);
    this.#refused.delete(principal);
    this.parts.store.deleteValue(VALUE_PREFIX + principal);
  }

  #save(principal: string): void {
    const { doubtedAtMs, objects } = this.#of(principal);
    const text = JSON.stringify({ doubtedAtMs, objects: [...objects] });
    this.parts.store.putValue(VALUE_PREFIX + principal, Buffer.from(text));
  }
}

function objectOf({ group, resource, namespace, name }: AskedObject): string {
  return `${group}/${resource}/${resource === "namespaces" ? "" : namespace}/${name}`;
}

/** Whether who may list `wide` may list `narrow`, as far as can be said without asking. */
function isWithin(narrow: ScopeIdentity, wide: ScopeIdentity): boolean {
  if (wide.group !== narrow.group || wide.resource !== narrow.resource) return false;
  if (wide.namespace !== "" && wide.namespace !== narrow.namespace) return false;
  return isPart(narrow.fieldSelector, wide.fieldSelector) && isPart(narrow.labelSelector, wide.labelSelector);
}

function isPart(narrow: string, wide: string): boolean {
  return wide === "" || wide === narrow;
}

function readRefused(bytes: Uint8Array | undefined): Refused | undefined {
  try {
    const value = JSON.parse(Buffer.from(bytes ?? []).toString("utf8")) as { doubtedAtMs: number; objects: string[] };
    return { doubtedAtMs: Number(value.doubtedAtMs), objects: new Set(value.objects.map(String)) };
  } catch {
    return undefined;
  }
}
