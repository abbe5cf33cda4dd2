/**
 * Which replica writes: the one that holds a Lease.
 *
 * As client-go elects: a lease counts as held until its record has stood still
 * for its duration on our own clock, so no two clocks are compared; a leader
 * that could not renew in time steps down before another may step up.
 *
 * What a successor has to know can be noted on the Lease: a note is written
 * only while the Lease is still ours, and whoever takes it over has read it.
 */

import type { V1Lease, V1LeaseSpec } from "@kubernetes/client-node";
import * as v from "valibot";
import type { Clock } from "../base/clock.ts";
import type { Log } from "../base/log.ts";
import { reads, sent, type Wire } from "../kube/wire.ts";
import { ApiError, type ClusterApi } from "../cluster/api.ts";
import { describe, pause } from "../cluster/follow.ts";

/** Which lease, and as whom. */
export interface LeaderOptions {
  readonly api: ClusterApi;
  readonly clock: Clock;
  readonly log: Log;
  readonly namespace: string;
  readonly name: string;
  /** Unique among replicas. */
  readonly identity: string;
  readonly signal: AbortSignal;
}

const LEASE_SECONDS = 15;
const RENEW_DEADLINE_MS = 10_000;
const RETRY_MS = 2_000;

const ANNOTATE_TRIES = 5;
const LEASE = { apiVersion: "coordination.k8s.io/v1", kind: "Lease" } as const;
const texts = v.record(v.string(), v.string());
const schema = reads<V1Lease>()(
  v.object({
    metadata: v.looseObject({ resourceVersion: v.string(), annotations: v.nullish(texts) }),
    spec: v.nullish(
      v.looseObject({
        holderIdentity: v.nullish(v.string(), ""),
        renewTime: v.nullish(v.string(), ""),
        leaseDurationSeconds: v.nullish(v.number(), LEASE_SECONDS),
        leaseTransitions: v.nullish(v.number(), 0),
      }),
    ),
  }),
);
type Lease = v.InferOutput<typeof schema>;

/** Candidate for the lease. */
export class Leader {
  #observed = "";
  #observedMs = 0;
  #renewedMs = Number.NEGATIVE_INFINITY;
  #wasLeader = false;
  #term = 0;
  #found: Readonly<Record<string, string>> = {};

  constructor(private readonly options: LeaderOptions) {}

  /** Whether this replica may write now. */
  get isLeader(): boolean {
    return this.options.clock.monotonicMs() - this.#renewedMs < RENEW_DEADLINE_MS;
  }

  /** Another number each time this replica takes the lease over; 0 before the first. */
  get term(): number {
    return this.#term;
  }

  /** What an earlier leader had noted when this one took over. */
  found(annotation: string): string | undefined {
    return this.#found[annotation];
  }

  /**
   * Notes something on the Lease for whoever leads next.
   *
   * @returns false: this replica leads no more, and nothing was written.
   * @throws {ApiError}
   */
  async annotate(annotation: string, value: string): Promise<boolean> {
    for (let tries = 1; this.isLeader; tries++) {
      const lease = await this.#read();
      if (lease === undefined) return false;
      if (lease.spec?.holderIdentity !== this.options.identity) return false;
      const annotations = { ...lease.metadata.annotations, [annotation]: value };
      try {
        await this.#write({ ...lease, metadata: { ...lease.metadata, annotations } }, {});
        return this.isLeader;
      } catch (error) {
        // Most likely our own renewal.
        if (!(error instanceof ApiError && error.isConflict) || tries >= ANNOTATE_TRIES) throw error;
      }
    }
    return false;
  }

  /** Tries for the lease until the signal comes, and lets it go then. */
  async run(): Promise<void> {
    const { clock, log, signal } = this.options;
    while (!signal.aborted) {
      try {
        await this.#step();
      } catch (error) {
        // Another was first, or nobody answers: both are tried again.
        if (!(error instanceof ApiError && error.isConflict))
          log.warn("cannot renew the lease", { reason: describe(error) });
      }
      if (this.isLeader !== this.#wasLeader) log.info(this.isLeader ? "leads from now on" : "leads no more");
      this.#wasLeader = this.isLeader;
      await pause(clock, RETRY_MS, signal);
    }
    await this.#release().catch(() => undefined);
  }

  async #step(): Promise<void> {
    const { api, clock, name, namespace, identity } = this.options;
    const startedMs = clock.monotonicMs();
    const lease = await this.#read();
    if (lease === undefined) {
      const spec = { ...this.#claim(), acquireTime: this.#now(), leaseTransitions: 0 };
      await api.createLease(namespace, sent<V1Lease>()({ ...LEASE, metadata: { name, namespace }, spec }));
      this.#tookOver({});
      this.#renewedMs = startedMs;
      return;
    }
    const holder = lease.spec?.holderIdentity ?? "";
    const record = `${holder}\n${lease.spec?.renewTime}`;
    if (record !== this.#observed) {
      this.#observed = record;
      this.#observedMs = startedMs;
    }
    const durationMs = (lease.spec?.leaseDurationSeconds ?? LEASE_SECONDS) * 1_000;
    const isTheirs = holder !== "" && holder !== identity;
    if (isTheirs && startedMs - this.#observedMs < durationMs) return;
    const isNew = holder !== identity;
    await this.#write(lease, {
      ...this.#claim(),
      ...(isNew ? { acquireTime: this.#now(), leaseTransitions: (lease.spec?.leaseTransitions ?? 0) + 1 } : {}),
    });
    if (isNew) this.#tookOver(lease.metadata.annotations ?? {});
    this.#renewedMs = startedMs;
  }

  #tookOver(found: Readonly<Record<string, string>>): void {
    this.#term += 1;
    this.#found = found;
  }

  async #release(): Promise<void> {
    if (!this.isLeader) return;
    this.#renewedMs = Number.NEGATIVE_INFINITY;
    const lease = await this.#read();
    if (lease?.spec?.holderIdentity === this.options.identity)
      await this.#write(lease, { holderIdentity: "", leaseDurationSeconds: 1, renewTime: this.#now() });
  }

  async #read(): Promise<Lease | undefined> {
    const { api, namespace, name } = this.options;
    const found = await api.readLease(namespace, name);
    return found === undefined ? undefined : v.parse(schema, found);
  }

  async #write({ metadata, spec }: Lease, change: Wire<V1LeaseSpec>): Promise<void> {
    const { api, namespace, name } = this.options;
    const lease = sent<V1Lease>()({ ...LEASE, metadata, spec: { ...spec, ...change } });
    await api.replaceLease(namespace, name, lease);
  }

  #claim() {
    return { holderIdentity: this.options.identity, leaseDurationSeconds: LEASE_SECONDS, renewTime: this.#now() };
  }

  #now(): string {
    return new Date(this.options.clock.nowMs()).toISOString().replace("Z", "000Z");
  }
}
