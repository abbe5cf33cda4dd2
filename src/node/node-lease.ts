/**
 * Kubelet's lease: echoed while the link is cut, and not stored.
 *
 * Kept is the API server's last answer, for a GET while cut and, the first of
 * each run, on disk for a reboot. Where bytes are dear, `leaseInterval` lets a
 * renewal go up only so often: one that changes nothing else and comes sooner
 * is answered with itself, as while cut. That is nearly half of an idle node's
 * traffic, and it costs as much of the control plane's patience (40 or 50 s
 * since the last renewal), so nothing is held back unless it is asked for.
 * A renewal that failed is never followed by an echo.
 */

import * as v from "valibot";
import type { Clock } from "../base/clock.ts";
import { readAnsweredObject } from "../kube/answered-object.ts";
import { isRenewal } from "../kube/lease.ts";
import type { Store } from "../store/contract.ts";
import { headed, readHeaded } from "./headed-value.ts";

/** A body with its type. */
export interface LeaseAnswer {
  readonly contentType: string;
  readonly body: Uint8Array;
}

const LEASE_VALUE = "lease";
const headSchema = v.object({ node: v.string(), contentType: v.string() });

/** The lease of this node, as it was last answered. */
export class NodeLease {
  #answer: LeaseAnswer | undefined;
  #isSaved = false;
  /** The API server's last answer to a renewal and when it came; undefined after a renewal that has none. */
  #renewed: (LeaseAnswer & { readonly atMs: number }) | undefined;

  /**
   * @param intervalMs at most how often renewals go up; 0 sends each.
   * @param onRenewed told of the lease's resourceVersion after each renewal.
   */
  constructor(
    private readonly store: Store,
    private readonly clock: Clock,
    private readonly intervalMs: number,
    private readonly onRenewed: (resourceVersion: string) => void = () => {},
  ) {}

  /** What a GET is answered with while cut. */
  kept(nodeName: string): LeaseAnswer | undefined {
    if (this.#answer !== undefined) return this.#answer;
    const kept = readHeaded(this.store.getValue(LEASE_VALUE), headSchema);
    if (kept?.head.node !== nodeName) return undefined;
    return (this.#answer = { contentType: kept.head.contentType, body: kept.body });
  }

  /** Takes a renewal for its own answer. */
  echo(renewal: LeaseAnswer): LeaseAnswer {
    return (this.#answer = renewal);
  }

  /** Whether a renewal may be answered here though the link is well. */
  isEarly(renewal: LeaseAnswer): boolean {
    const renewed = this.#renewed;
    if (this.intervalMs === 0 || renewed === undefined) return false;
    if (this.clock.monotonicMs() - renewed.atMs >= this.intervalMs) return false;
    return renewed.contentType === renewal.contentType && isRenewal(renewed.body, renewal.body);
  }

  /** A request for it goes up; until it is answered nothing is known. */
  goesUp(): void {
    this.#renewed = undefined;
  }

  /** The API server's answer. @param isRenewed to a renewal. */
  answered(nodeName: string, answer: LeaseAnswer, isRenewed: boolean): void {
    this.#answer = answer;
    if (isRenewed) {
      this.#renewed = { ...answer, atMs: this.clock.monotonicMs() };
      const object = readAnsweredObject(answer.contentType, answer.body);
      if (object?.kind === "Lease") this.onRenewed(object.meta.resourceVersion);
    }
    if (this.#isSaved) return;
    this.#isSaved = true;
    this.store.putValue(LEASE_VALUE, headed({ node: nodeName, contentType: answer.contentType }, answer.body));
  }
}
