/**
 * The cluster as the guard knows it, kept by watches.
 *
 * Of a pod a dozen words are kept, of a node what the rules and the truth need;
 * the objects themselves are let go as soon as they are read, so that a guard of
 * a thousand nodes stays small. What cannot be read (no name, no status) is
 * taken for absent, never for an error: one odd object must not blind the guard.
 */

import type { Clock } from "../base/clock.ts";
import type { Log } from "../base/log.ts";
import type { ClusterApi, Collections } from "../cluster/api.ts";
import type { ClusterView, GuardedNode, GuardedPod } from "./cluster-view.ts";
import { follow } from "../cluster/follow.ts";
import {
  leaseFacts,
  nodeFacts,
  parametersFacts,
  placeOf,
  podFacts,
  type NodeFacts,
  type ParametersObject,
} from "./facts.ts";
import { Hearing } from "./hearing.ts";
import { PARAMETERS_NAME } from "./names.ts";
import { readParameters, type GuardParameters } from "./parameters.ts";
import { termsOf } from "./terms.ts";

/** What the view is filled from. */
export interface LiveViewOptions {
  readonly api: Pick<ClusterApi, "readNodeLease">;
  readonly client: Collections;
  readonly clock: Clock;
  readonly log: Log;
  /** Where the ConfigMap is. */
  readonly namespace: string;
  readonly signal: AbortSignal;
}

const COLLECTIONS = ["nodes", "leases", "pods", "parameters"] as const;
/** That the cluster was set back is news once, however many collections find out. */
const TOLD_FOR_MS = 20_000;
const LEASES = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";

/** The view; `start` fills it. */
export class LiveView implements ClusterView {
  readonly #nodes = new Map<string, NodeFacts>();
  readonly #pods = new Map<string, GuardedPod>();
  readonly #podsByNode = new Map<string, Set<GuardedPod>>();
  readonly #hearing: Hearing;
  readonly #synced = new Set<(typeof COLLECTIONS)[number]>();
  /** Few different texts stand in many pods. */
  readonly #words = new Map<string, string>();
  #parameters: GuardParameters = readParameters(undefined);
  #hasParameters = false;
  #parametersObject: ParametersObject | undefined;
  #newest = 0n;
  #wentBackMs = Number.NEGATIVE_INFINITY;
  #anew = new AbortController();

  constructor(private readonly options: LiveViewOptions) {
    this.#hearing = new Hearing(options.clock);
  }

  /** Follows everything until the signal comes. */
  async start(): Promise<void> {
    await Promise.all([this.#followNodes(), this.#followLeases(), this.#followPods(), this.#followParameters()]);
  }

  /**
   * Lists everything anew if the cluster has gone back in time, as after a
   * restore of etcd: a watch from a version that is yet to come is silent, and
   * looks well.
   *
   * @throws {ApiError}
   */
  async checkHistory(): Promise<void> {
    const { resourceVersion } = await this.options.client.list("/api/v1/namespaces", { limit: 1 });
    const version = BigInt(/^[0-9]+$/.test(resourceVersion) ? resourceVersion : "0");
    if (version < this.#newest) this.#wentBack();
    this.#newest = version;
  }

  /** All collections are read anew; each of them may find it out for itself. */
  #wentBack(): void {
    const nowMs = this.options.clock.monotonicMs();
    if (nowMs - this.#wentBackMs < TOLD_FOR_MS) return;
    this.#wentBackMs = nowMs;
    this.options.log.warn("the cluster's history has gone back: everything is read anew");
    this.#hearing.restart();
    this.#anew.abort(new Error("history"));
    this.#anew = new AbortController();
  }

  /** To be called whenever the API server has answered. */
  contact(): void {
    this.#hearing.contact();
  }

  /**
   * Reads a node's lease itself: a watch may stand still without a word, and
   * nobody shall be called silent for that.
   *
   * @throws {ApiError}
   */
  async listen(nodeName: string): Promise<void> {
    const lease = leaseFacts(await this.options.api.readNodeLease(nodeName));
    if (lease !== undefined) this.#hearing.found(nodeName, lease.renewal);
  }

  get isSynced(): boolean {
    return this.#synced.size === COLLECTIONS.length;
  }

  /** What has not been read yet. */
  get missing(): string[] {
    return COLLECTIONS.filter((one) => !this.#synced.has(one));
  }

  get parameters(): GuardParameters {
    return this.#parameters;
  }

  /** False: the ConfigMap is not there, and the policies are asleep. */
  get hasParameters(): boolean {
    return this.#hasParameters;
  }

  /** The ConfigMap as it was last there; undefined if it never was. */
  get parametersObject(): ParametersObject | undefined {
    return this.#parametersObject;
  }

  get counts(): { readonly nodes: number; readonly pods: number } {
    return { nodes: this.#nodes.size, pods: this.#pods.size };
  }

  node(name: string): GuardedNode | undefined {
    const facts = this.#nodes.get(name);
    return facts === undefined ? undefined : this.#guarded(facts);
  }

  *nodes(): Iterable<GuardedNode> {
    for (const facts of this.#nodes.values()) yield this.#guarded(facts);
  }

  /** What else is known of all nodes. */
  everyFacts(): Iterable<NodeFacts> {
    return this.#nodes.values();
  }

  /** What else is known of a node. */
  facts(name: string): NodeFacts | undefined {
    return this.#nodes.get(name);
  }

  pod(namespace: string, name: string): GuardedPod | undefined {
    return this.#pods.get(`${namespace}/${name}`);
  }

  podsOn(nodeName: string): Iterable<GuardedPod> {
    return this.#podsByNode.get(nodeName) ?? [];
  }

  #guarded(facts: NodeFacts): GuardedNode {
    const { name, uid, ready, taints } = facts;
    return {
      name,
      uid,
      ready,
      taints,
      terms: termsOf(facts, this.#parameters),
      hearing: this.#hearing.of(name, this.#parameters.silentAfterMs),
      lastSeenMs: this.#hearing.lastSeenMs(name),
    };
  }

  #followNodes(): Promise<void> {
    return this.#follow("nodes", "/api/v1/nodes", {
      all: () => this.#nodes.keys(),
      put: (object) => {
        const facts = nodeFacts(object);
        if (facts === undefined) return undefined;
        this.#nodes.set(facts.name, facts);
        this.#hearing.expect(facts.name);
        return facts.name;
      },
      remove: (name) => {
        this.#nodes.delete(name);
        this.#hearing.forget(name);
      },
      keyOf: ({ name }) => name,
    });
  }

  #followLeases(): Promise<void> {
    return this.#follow("leases", LEASES, {
      all: () => [],
      put: (object, isListing) => {
        const lease = leaseFacts(object);
        if (lease === undefined) return undefined;
        if (isListing) this.#hearing.found(lease.name, lease.renewal);
        else this.#hearing.event(lease.name, lease.renewal);
        return lease.name;
      },
      // A lease that is deleted is a lease that stands still; the node itself decides whether it is gone.
      remove: () => undefined,
      keyOf: ({ name }) => name,
      began: () => this.#hearing.begin(),
      watching: () => this.#hearing.watching(),
    });
  }

  #followPods(): Promise<void> {
    return this.#follow("pods", "/api/v1/pods", {
      all: () => this.#pods.keys(),
      put: (object) => {
        const pod = podFacts(object, (text) => this.#word(text));
        if (pod === undefined) return undefined;
        const key = `${pod.namespace}/${pod.name}`;
        this.#removePod(key);
        this.#pods.set(key, pod);
        const onNode = this.#podsByNode.get(pod.nodeName);
        if (onNode === undefined) this.#podsByNode.set(pod.nodeName, new Set([pod]));
        else onNode.add(pod);
        return key;
      },
      remove: (key) => this.#removePod(key),
      keyOf: ({ namespace, name }) => `${namespace}/${name}`,
    });
  }

  #followParameters(): Promise<void> {
    const path = `/api/v1/namespaces/${this.options.namespace}/configmaps?fieldSelector=metadata.name%3D${PARAMETERS_NAME}`;
    return this.#follow("parameters", path, {
      all: () => (this.#hasParameters ? [PARAMETERS_NAME] : []),
      put: (object) => {
        const found = parametersFacts(object);
        if (found?.name !== PARAMETERS_NAME) return undefined;
        this.#hasParameters = true;
        this.#parametersObject = found;
        this.#parameters = readParameters(found.data);
        for (const problem of this.#parameters.problems) this.options.log.warn("parameter cannot be read", { problem });
        return PARAMETERS_NAME;
      },
      remove: () => {
        this.#hasParameters = false;
        this.#parameters = readParameters(undefined);
        this.options.log.warn("the ConfigMap with the parameters is gone: the policies on nodes are asleep", {
          name: PARAMETERS_NAME,
          namespace: this.options.namespace,
        });
      },
      keyOf: ({ name }) => name,
    });
  }

  #follow(
    what: (typeof COLLECTIONS)[number],
    path: string,
    kept: {
      /** Keys of what is kept now. */
      readonly all: () => Iterable<string>;
      /** @returns its key; undefined when it cannot be read. */
      readonly put: (object: unknown, isListing: boolean) => string | undefined;
      readonly remove: (key: string) => void;
      readonly keyOf: (metadata: { readonly namespace: string; readonly name: string }) => string;
      readonly began?: () => void;
      readonly watching?: () => void;
    },
  ): Promise<void> {
    let listed = new Set<string>();
    let isListing = false;
    return follow({
      ...this.options,
      what,
      path,
      anew: () => this.#anew.signal,
      wentBack: () => this.#wentBack(),
      watching: () => kept.watching?.(),
      listing: () => {
        listed = new Set();
        isListing = true;
      },
      put: (object) => {
        const key = kept.put(object, isListing);
        if (isListing && key !== undefined) listed.add(key);
      },
      listed: () => {
        for (const key of [...kept.all()]) if (!listed.has(key)) kept.remove(key);
        listed = new Set();
        isListing = false;
        kept.began?.();
        this.#synced.add(what);
      },
      gone: (object) => {
        const place = placeOf(object);
        if (place !== undefined) kept.remove(kept.keyOf(place));
      },
    });
  }

  #removePod(key: string): void {
    const pod = this.#pods.get(key);
    if (pod === undefined) return;
    this.#pods.delete(key);
    const onNode = this.#podsByNode.get(pod.nodeName);
    onNode?.delete(pod);
    if (onNode?.size === 0) this.#podsByNode.delete(pod.nodeName);
  }

  #word(given: string): string {
    const known = this.#words.get(given);
    if (known !== undefined) return known;
    if (this.#words.size > 100_000) this.#words.clear();
    this.#words.set(given, given);
    return given;
  }
}
