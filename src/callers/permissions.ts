/**
 * Who may list and watch what, as proven and not as assumed.
 *
 * One caller's rows may only reach another who could have fetched them. The
 * proof is the API server's word: its own answer to the same unrestricted list
 * or watch, or a SelfSubjectAccessReview made with that caller's credential. An
 * answer to a list with selectors proves nothing about one without: since 1.34
 * authorizers look at selectors.
 *
 * Proofs are kept in memory only. They are believed for five minutes, no longer
 * than the API server lets a client's open watch run before it asks again
 * (client-go asks for 5 to 10); after a restart a new one costs one small request, and one from before would not be
 * believed anyway.
 *
 * Source: k8s.io/api authorization/v1; KEP-4601.
 */

import { type AskedBetween, betweenNow, LastRefusals } from "../base/asked.ts";
import type { Clock } from "../base/clock.ts";
import { UnreachableError } from "../uplink/scope-source.ts";

/** A collection that permission is about; namespace "" is all of them. */
export interface Collection {
  readonly group: string;
  readonly version: string;
  readonly resource: string;
  readonly namespace: string;
}

/** What lists and watches need. */
export type ReadVerb = "list" | "watch";

/** Asks the API server with a principal's credential whether it may. */
export interface AccessReviewer {
  /** @returns undefined when the API server answers but gives no verdict. @throws {UnreachableError} */
  mayAccess(
    principal: string,
    verb: ReadVerb,
    collection: Collection,
    signal: AbortSignal,
  ): Promise<boolean | undefined>;
}

/** A verdict, or none yet. */
export type Permission = "proven" | "denied" | "unknown";

interface Verdict {
  readonly isAllowed: boolean;
  readonly atMs: number;
}

/** How long a proof is believed. */
export const PROOF_MS = 300_000;
/** A refusal is respected for an hour. */
const DENIAL_MS = 3_600_000;
/** Without a verdict it is asked again after a minute at the earliest. */
const NO_VERDICT_MS = 60_000;
const REVIEW_PATIENCE_MS = 3_000;
const MAX_VERDICTS = 4_096;

/** Remembers verdicts and asks for what is missing. */
export class Permissions {
  #verdicts = new Map<string, Verdict>();
  #noVerdictMs = new Map<string, number>();
  #asking = new Map<string, Promise<Permission>>();
  readonly #refused = new LastRefusals();

  constructor(
    private readonly clock: Clock,
    private readonly reviewer: AccessReviewer,
  ) {}

  /** The API server answered a principal's own list or watch of a whole collection. @param asked when it was asked. */
  observed(principal: string, verb: ReadVerb, collection: Collection, isAllowed: boolean, asked: AskedBetween): void {
    if (isAllowed && this.#refused.outdate(principal, asked)) return;
    this.#keep(keyOf(principal, verb, collection), isAllowed);
  }

  /** What is known without asking. A proof for all namespaces holds for each. */
  known(principal: string, verb: ReadVerb, collection: Collection): Permission {
    if (this.#valid(keyOf(principal, verb, { ...collection, namespace: "" }))?.isAllowed === true) return "proven";
    const verdict = this.#valid(keyOf(principal, verb, collection));
    return verdict === undefined ? "unknown" : verdict.isAllowed ? "proven" : "denied";
  }

  /** For how long what is proven is still believed, in ms; 0 for what is not. */
  believedForMs(principal: string, verb: ReadVerb, collection: Collection): number {
    const nowMs = this.clock.monotonicMs();
    const proofs = [collection, { ...collection, namespace: "" }]
      .map((of) => this.#valid(keyOf(principal, verb, of)))
      .filter((verdict) => verdict?.isAllowed === true);
    return Math.max(0, ...proofs.map((verdict) => verdict!.atMs + PROOF_MS - nowMs));
  }

  /** What is known, or what the API server says now. */
  async prove(principal: string, verb: ReadVerb, collection: Collection): Promise<Permission> {
    const known = this.known(principal, verb, collection);
    return known === "unknown" ? this.#ask(principal, verb, collection) : known;
  }

  /** What the API server says now, whatever is known. */
  renew(principal: string, verb: ReadVerb, collection: Collection): Promise<Permission> {
    this.#noVerdictMs.delete(keyOf(principal, verb, collection));
    return this.#ask(principal, verb, collection);
  }

  /** Something was refused to a principal: forgets its proofs, all of them or those on one resource, and whatever was asked for before. */
  forget(principal: string, of?: { readonly group: string; readonly resource: string }): void {
    this.#refused.note(principal);
    const start = JSON.stringify(of === undefined ? [principal] : [principal, `${of.group}/${of.resource}`]).slice(
      0,
      -1,
    );
    for (const [key, { isAllowed }] of this.#verdicts)
      if (isAllowed && key.startsWith(`${start},`)) this.#verdicts.delete(key);
  }

  #valid(key: string): Verdict | undefined {
    const verdict = this.#verdicts.get(key);
    if (verdict === undefined) return undefined;
    const ageMs = this.clock.monotonicMs() - verdict.atMs;
    return ageMs < (verdict.isAllowed ? PROOF_MS : DENIAL_MS) ? verdict : undefined;
  }

  #ask(principal: string, verb: ReadVerb, collection: Collection): Promise<Permission> {
    const key = keyOf(principal, verb, collection);
    if (this.clock.monotonicMs() - (this.#noVerdictMs.get(key) ?? Number.NEGATIVE_INFINITY) < NO_VERDICT_MS)
      return Promise.resolve("unknown");
    let asking = this.#asking.get(key);
    if (asking === undefined) {
      asking = this.#askOnce(principal, verb, collection).finally(() => this.#asking.delete(key));
      this.#asking.set(key, asking);
    }
    return asking;
  }

  async #askOnce(principal: string, verb: ReadVerb, collection: Collection): Promise<Permission> {
    const key = keyOf(principal, verb, collection);
    const asked = betweenNow();
    const controller = new AbortController();
    const cancel = this.clock.after(REVIEW_PATIENCE_MS, () => controller.abort());
    let isAllowed: boolean | undefined;
    try {
      isAllowed = await this.reviewer.mayAccess(principal, verb, collection, controller.signal);
    } catch (error) {
      // A cut is over sooner or later, and whoever asks waits between attempts anyway.
      if (error instanceof UnreachableError) return "unknown";
      throw error;
    } finally {
      cancel();
    }
    if (isAllowed === true && this.#refused.outdate(principal, asked)) return "unknown";
    if (isAllowed === undefined) {
      if (this.#noVerdictMs.size >= MAX_VERDICTS) this.#noVerdictMs.clear();
      this.#noVerdictMs.set(key, this.clock.monotonicMs());
      return "unknown";
    }
    this.#keep(key, isAllowed);
    return isAllowed ? "proven" : "denied";
  }

  #keep(key: string, isAllowed: boolean): void {
    this.#verdicts.delete(key);
    if (this.#verdicts.size >= MAX_VERDICTS) this.#verdicts.delete(this.#verdicts.keys().next().value!);
    this.#verdicts.set(key, { isAllowed, atMs: this.clock.monotonicMs() });
  }
}

/** RBAC knows no versions. */
function keyOf(principal: string, verb: ReadVerb, { group, resource, namespace }: Collection): string {
  return JSON.stringify([principal, `${group}/${resource}`, verb, namespace]);
}
