/**
 * Which requests this leader, or the one before, may be about to approve.
 *
 * An approval that was sent can take its time, and a leader can lose its lease
 * meanwhile: the next one sees a request that nobody has approved, approves
 * another of the same node, and both go through. So before anything is
 * approved it is noted in the leader's own Lease, which only its holder can
 * write:
 *
 *   A: claims 1 in the Lease   A: approves 1 ............................. arrives
 *                                            B: takes the Lease, reads the claim, leaves 2
 *
 * A claim that was found is kept for two minutes on our own clock, longer than
 * an API server works at a request; then the approval stands in the request
 * itself, or never will.
 */

import * as v from "valibot";
import type { Clock } from "../base/clock.ts";
import type { Leader } from "./leader.ts";

/** Claims, by "USE NODE". */
export class Claims {
  readonly #claims = new Map<string, { readonly uid: string; readonly sinceMs: number }>();
  #term = 0;

  constructor(
    private readonly leader: Pick<Leader, "term" | "isLeader" | "found" | "annotate">,
    private readonly clock: Clock,
  ) {}

  /** Whether another request may be on its way to approval in this one's place. */
  isClaimed(key: string, uid: string): boolean {
    this.#refresh();
    const claim = this.#claims.get(key);
    return claim !== undefined && claim.uid !== uid;
  }

  /**
   * Notes what is about to be approved.
   *
   * @param requests uids by key; none of them claimed by another.
   * @returns false: this replica leads no more, and nothing may be approved.
   */
  async claim(requests: ReadonlyMap<string, string>): Promise<boolean> {
    this.#refresh();
    const sinceMs = this.clock.monotonicMs();
    for (const [key, uid] of requests) this.#claims.set(key, { uid, sinceMs });
    const noted = Object.fromEntries([...this.#claims].map(([key, { uid }]) => [key, uid]));
    return await this.leader.annotate(CLAIMS_ANNOTATION, JSON.stringify(noted));
  }

  #refresh(): void {
    const nowMs = this.clock.monotonicMs();
    if (this.#term !== this.leader.term) {
      this.#term = this.leader.term;
      this.#claims.clear();
      for (const [key, uid] of readClaims(this.leader.found(CLAIMS_ANNOTATION)))
        this.#claims.set(key, { uid, sinceMs: nowMs });
    }
    for (const [key, { sinceMs }] of this.#claims) if (nowMs - sinceMs >= CLAIM_MS) this.#claims.delete(key);
  }
}

/** On the leader's Lease: uids of requests by "USE NODE", JSON. */
export const CLAIMS_ANNOTATION = "holdfast.dev/approving";

const CLAIM_MS = 120_000;
const schema = v.record(v.string(), v.string());

function readClaims(text: string | undefined): [string, string][] {
  if (text === undefined) return [];
  try {
    const parsed = v.safeParse(schema, JSON.parse(text));
    return parsed.success ? Object.entries(parsed.output) : [];
  } catch {
    return [];
  }
}
