/**
 * Who gives way when the store is beyond its quota.
 *
 * The store says that it is, behind a commit and at most once a minute; who is
 * used, followed and whose, is known here. In this order:
 *
 *   1  other callers': recorded answers, and copies that nobody follows or watches,
 *      of whoever keeps most, the longest unused first
 *   2  the node's recorded answers, then its copies that nobody follows or watches
 *   3  of those, what kubelet lives on
 *   4  other callers' that are followed, of whoever keeps most: passed through from
 *      then on, for a copy that is dropped under a watch is listed again at once
 *
 * What the node follows stays. While cut nothing goes at all, unless the disk
 * is full and all of it lies in memory.
 *
 * Taking from whoever keeps most makes the shares equal: no caller's requests,
 * however many, push out what a smaller one keeps.
 */

import type { Clock } from "../base/clock.ts";
import type { Log } from "../base/log.ts";
import type { ResponseKey, ScopeIdentity, Store } from "../store/contract.ts";
import type { Scope } from "./scope.ts";
import type { Scopes } from "./scopes.ts";

/** What the judgement needs. */
export interface QuotaParts {
  readonly store: Pick<Store, "excessBytes" | "usage" | "listResponses" | "deleteResponse" | "flush">;
  readonly scopes: Pick<Scopes, "all" | "drop">;
  readonly isOnline: () => boolean;
  /** Whether a principal is the node itself. */
  readonly isOwn: (principal: string) => boolean;
  readonly clock: Clock;
  readonly log: Log;
}

/** What giving way has come to. */
export interface GivenWay {
  readonly answers: number;
  readonly copies: number;
  readonly passedThrough: number;
  /** What is beyond the quota still; 0 when it is kept. */
  readonly excessBytes: number;
}

interface Candidate {
  readonly principal: string;
  readonly sizeBytes: number;
  readonly unusedMs: number;
  readonly kind: "answers" | "copies" | "passedThrough";
  readonly goes: () => void;
}

/** The resources that kubelet lives on. */
const VITAL = new Set(["pods", "nodes", "secrets", "configmaps"]);

/** Judges each time the store is beyond its quota. */
export class Quota {
  #last: GivenWay | undefined;

  constructor(private readonly parts: QuotaParts) {}

  /** What the last time came to; undefined while there was none. */
  get last(): GivenWay | undefined {
    return this.#last;
  }

  /** @param isInMemory the disk takes nothing, and what is kept takes memory. */
  giveWay(isInMemory: boolean): GivenWay {
    const { store, log } = this.parts;
    const gone = { answers: 0, copies: 0, passedThrough: 0 };
    if (this.parts.isOnline() || isInMemory) {
      for (const class_ of this.#classes()) {
        // How much room each makes is an estimate: after half of what is owed the file is asked again.
        let stepBytes = store.excessBytes() / 2;
        for (const { kind, goes, sizeBytes } of inTurn(class_)) {
          if (stepBytes <= 0) stepBytes = this.#settled() / 2;
          if (stepBytes <= 0) break;
          goes();
          gone[kind]++;
          stepBytes -= sizeBytes;
        }
        if (this.#settled() <= 0) break;
      }
    }
    this.#last = { ...gone, excessBytes: Math.max(0, store.excessBytes()) };
    log.warn("store beyond its quota", { ...this.#last });
    return this.#last;
  }

  #settled(): number {
    this.parts.store.flush();
    return this.parts.store.excessBytes();
  }

  /** All that may go, the first class first; the node's own in the order in which it goes. */
  #classes(): Candidate[][] {
    const { isOwn } = this.parts;
    const answers = this.#answers();
    const idle = [...this.parts.scopes.all()].filter(isIdle);
    const followed = [...this.parts.scopes.all()].filter((scope) => !isIdle(scope) && scope.copy.listed !== undefined);
    const usage = this.parts.store.usage();
    const copies = (scopes: readonly Scope[]) => scopes.map((scope) => this.#copy(scope, usage.get(scope.copy) ?? 0));
    const own = idle.filter(({ identity }) => isOwn(identity.principal));
    const others = idle.filter(({ identity }) => !isOwn(identity.principal));
    return [
      [...answers.filter(({ principal }) => !isOwn(principal)), ...copies(others)],
      answers.filter(({ principal }) => isOwn(principal)),
      copies(own.filter(({ identity }) => !isVital(identity))),
      copies(own.filter(({ identity }) => isVital(identity))),
      copies(followed.filter(({ identity }) => !isOwn(identity.principal))),
    ];
  }

  #answers(): Candidate[] {
    const { store, clock } = this.parts;
    const candidateOf = ({
      key,
      sizeBytes,
      storedAtMs,
    }: {
      readonly key: ResponseKey;
      readonly sizeBytes: number;
      readonly storedAtMs: number;
    }): Candidate => ({
      principal: key.principal,
      sizeBytes,
      unusedMs: clock.nowMs() - storedAtMs,
      kind: "answers",
      goes: () => store.deleteResponse(key),
    });
    return store.listResponses().map(candidateOf);
  }

  #copy(scope: Scope, sizeBytes: number): Candidate {
    return {
      principal: scope.identity.principal,
      sizeBytes,
      unusedMs: scope.unusedMs,
      ...(isIdle(scope)
        ? { kind: "copies", goes: () => this.parts.scopes.drop(scope) }
        : { kind: "passedThrough", goes: () => scope.passThrough() }),
    };
  }
}

/** Whether nobody would miss it at once. */
function isIdle({ isFollowing, watcherCount, copy }: Scope): boolean {
  return !isFollowing && watcherCount === 0 && copy.listed !== undefined;
}

function isVital({ group, resource }: ScopeIdentity): boolean {
  return group === "" && VITAL.has(resource);
}

/** Each time one of whoever keeps most then, the longest unused first. */
function inTurn(candidates: readonly Candidate[]): Candidate[] {
  const byPrincipal = new Map<string, { left: Candidate[]; bytes: number }>();
  for (const candidate of candidates) {
    const share = byPrincipal.get(candidate.principal) ?? { left: [], bytes: 0 };
    share.left.push(candidate);
    share.bytes += candidate.sizeBytes;
    byPrincipal.set(candidate.principal, share);
  }
  const shares = [...byPrincipal.values()];
  for (const { left } of shares) left.sort((a, b) => a.unusedMs - b.unusedMs);
  const order: Candidate[] = [];
  while (order.length < candidates.length) {
    const largest = shares.reduce((most, share) => (rank(share) > rank(most) ? share : most));
    const next = largest.left.pop()!;
    largest.bytes -= next.sizeBytes;
    order.push(next);
  }
  return order;
}

/** Who has nothing left to give is never the one. */
function rank({ left, bytes }: { readonly left: readonly Candidate[]; readonly bytes: number }): number {
  return left.length === 0 ? -1 : bytes;
}
