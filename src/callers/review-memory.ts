/**
 * Decisions of the API server about who somebody is and what they may do.
 *
 * Kubelet asks for each exec and each scrape; while the link is cut a decision
 * made shortly before stands, as long as kubelet's own webhook cache would
 * hold it: two minutes for a token, five for "allowed", half a minute for
 * "denied". In memory only: a decision must not outlive the process that heard
 * it, except the yes to a caller's question about itself (self-reviews.ts). The
 * request is kept as a keyed hash, for a TokenReview carries a token.
 */

import type { Clock } from "../base/clock.ts";
import { SELF_REVIEWS, type SelfReviews } from "./self-reviews.ts";
import { fieldsOf, MAGIC, openEnvelope } from "../kube/protobuf-wire.ts";

/** A remembered answer. */
export interface Decision {
  readonly contentType: string;
  readonly body: Uint8Array;
}

/** Asked what, by whom. */
export interface ReviewQuestion {
  readonly principal: string;
  readonly resource: string;
  readonly path: string;
  readonly accept: string;
  readonly contentType: string;
  readonly body: Uint8Array;
}

/** Resources whose POST is a question and changes nothing. */
export const REVIEWS: ReadonlySet<string> = new Set([
  "tokenreviews",
  "subjectaccessreviews",
  "localsubjectaccessreviews",
  ...SELF_REVIEWS,
]);

const TTL_MS = { token: 120_000, allowed: 300_000, denied: 30_000 } as const;
const MAX_DECISIONS = 1_000;

/** Remembers decisions within their time. */
export class ReviewMemory {
  #decisions = new Map<string, Decision & { readonly untilMs: number }>();

  constructor(
    private readonly clock: Clock,
    private readonly keyedHash: (text: string) => string,
    private readonly selfReviews?: SelfReviews,
  ) {}

  /** Notes the API server's answer to a question. */
  remember(question: ReviewQuestion, decision: Decision): void {
    const isYes = question.resource === "selfsubjectrulesreviews" || isAllowed(decision);
    const ttlMs = question.resource === "tokenreviews" ? TTL_MS.token : isYes ? TTL_MS.allowed : TTL_MS.denied;
    if (this.#decisions.size >= MAX_DECISIONS) this.#decisions.delete(this.#decisions.keys().next().value!);
    const key = this.#key(question);
    this.#decisions.delete(key);
    this.#decisions.set(key, { ...decision, untilMs: this.clock.monotonicMs() + ttlMs });
    if (!SELF_REVIEWS.has(question.resource)) return;
    if (isYes) this.selfReviews?.keep(key, question.principal, question.body, decision);
    else this.selfReviews?.drop(key);
  }

  /** The decision that still stands. */
  recall(question: ReviewQuestion): Decision | undefined {
    const key = this.#key(question);
    const decision = this.#decisions.get(key);
    if (decision !== undefined && decision.untilMs > this.clock.monotonicMs()) return decision;
    this.#decisions.delete(key);
    return SELF_REVIEWS.has(question.resource) ? this.selfReviews?.find(key) : undefined;
  }

  #key({ principal, path, accept, contentType, body }: ReviewQuestion): string {
    return this.keyedHash(
      `review\n${principal}\n${path}\n${accept}\n${contentType}\n${Buffer.from(body).toString("base64")}`,
    );
  }
}

/** `status.allowed` of an access review; false when it cannot be read. */
function isAllowed({ body }: Decision): boolean {
  try {
    if (MAGIC.some((byte, i) => body[i] !== byte))
      return (
        (JSON.parse(Buffer.from(body).toString("utf8")) as { status?: { allowed?: boolean } }).status?.allowed === true
      );
    const { start, end } = openEnvelope(body, 0, body.length);
    // SubjectAccessReview: metadata = 1, spec = 2, status = 3 { allowed = 1 }
    for (const field of fieldsOf(body, start, end)) {
      if (field.number !== 3) continue;
      for (const inner of fieldsOf(body, field.start, field.end)) if (inner.number === 1) return inner.value === 1;
    }
    return false;
  } catch {
    return false;
  }
}
