/**
 * A fleet that loses its API server and finds it again.
 *
 * Each node is one life of Holdfast with its real rooms (`way-process.ts`) and
 * a kubelet in front: fourteen watches, a lease every ten seconds, a status
 * every five minutes. All share one virtual clock and one API server that
 * counts. Where fewer nodes are simulated than the fleet has, each counts as
 * several: they do not know of each other.
 */

import type { WatchSink } from "../../src/cache/frames.ts";
import { certificatePrincipal, type Peer } from "../../src/callers/identify.ts";
import type { ScopeIdentity } from "../../src/store/contract.ts";
import { Random, VirtualClock } from "./clock.ts";
import { soundCode } from "./code.ts";
import { MemoryDisk } from "./disk.ts";
import { FleetServer, NODE_PAIR, type Second } from "./fleet-server.ts";
import { pathOf, WayProcess } from "./way-process.ts";

/** How a fleet is made. */
export interface FleetOptions {
  readonly seed: number;
  /** That are simulated. */
  readonly nodes: number;
  /** That the fleet has; each simulated node counts as `fleet / nodes`. */
  readonly fleet: number;
  /** What each is told of the fleet's size; undefined: it must guess. Default undefined. */
  readonly hint?: number;
  readonly mostPerSecond?: number;
}

/** What was asked of the API server, a second each, from the moment before which nothing counts. */
export type Curve = readonly Second[];

const PRINCIPAL = certificatePrincipal({ name: "system:node:edge", groups: ["system:nodes"] });
const PEER: Peer = {
  authorized: true,
  authorizationError: undefined,
  getPeerCertificate: () =>
    ({ subject: { CN: "system:node:edge", O: "system:nodes" }, valid_to: "2099-01-01" }) as never,
};
const LIMITS = {
  scopeMaxItems: 20_000,
  scopeMaxBytes: 1e8,
  storeMaxBytes: 1e9,
  ringMaxEvents: 1_024,
  ringMaxBytes: 2 ** 20,
  lingerMs: 300_000,
  bookmarkIntervalMs: 600_000,
};
const LEASE_MS = 10_000;
const STATUS_MS = 300_000;
const START_WITHIN_MS = 60_000;
/** A change of a Service and of an EndpointSlice, each this often. */
const CHANGE_MS = 10_000;

interface Followed {
  readonly path: string;
  readonly kind: string;
  readonly apiVersion: string;
  readonly names: readonly string[];
  readonly isOwn: boolean;
}

const numbered = (name: string, count: number) => Array.from({ length: count }, (_, n) => `${name}-${n}`);
const ofOne = (resource: string, kind: string, name: string): Followed => ({
  path: `/api/v1/namespaces/shop/${resource}?metadata.name=${name}`,
  kind,
  apiVersion: "v1",
  names: [name],
  isOwn: true,
});
/** What a node of a dozen pods follows. */
const FOLLOWED: readonly Followed[] = [
  { path: "/api/v1/nodes?metadata.name=edge", kind: "Node", apiVersion: "v1", names: ["edge"], isOwn: true },
  { path: "/api/v1/pods?spec.nodeName=edge", kind: "Pod", apiVersion: "v1", names: numbered("web", 12), isOwn: true },
  { path: "/api/v1/services", kind: "Service", apiVersion: "v1", names: numbered("svc", 30), isOwn: false },
  {
    path: "/apis/discovery.k8s.io/v1/endpointslices",
    kind: "EndpointSlice",
    apiVersion: "discovery.k8s.io/v1",
    names: numbered("slice", 30),
    isOwn: false,
  },
  {
    path: "/apis/storage.k8s.io/v1/csidrivers",
    kind: "CSIDriver",
    apiVersion: "storage.k8s.io/v1",
    names: [],
    isOwn: false,
  },
  {
    path: "/apis/node.k8s.io/v1/runtimeclasses",
    kind: "RuntimeClass",
    apiVersion: "node.k8s.io/v1",
    names: [],
    isOwn: false,
  },
  { path: "/api/v1/namespaces", kind: "Namespace", apiVersion: "v1", names: numbered("ns", 5), isOwn: false },
  ...numbered("settings", 4).map((name) => ofOne("configmaps", "ConfigMap", name)),
  ...numbered("keys", 3).map((name) => ofOne("secrets", "Secret", name)),
];

/** The fleet. */
export class FleetWorld {
  readonly clock = new VirtualClock(Number.POSITIVE_INFINITY);
  readonly server: FleetServer;
  readonly nodes: FleetNode[] = [];
  readonly #random: Random;

  constructor(private readonly options: FleetOptions) {
    const { seed, nodes, fleet, mostPerSecond } = options;
    this.#random = new Random(seed);
    this.server = new FleetServer({
      clock: this.clock,
      random: this.#random,
      weight: fleet / nodes,
      ...(mostPerSecond === undefined ? {} : { mostPerSecond }),
    });
    for (const { path, kind, apiVersion, names, isOwn } of FOLLOWED)
      if (!isOwn) this.server.collection(path, kind, apiVersion, names);
    for (let index = 0; index < nodes; index++)
      this.clock.after(this.#random.next() * START_WITHIN_MS, () => this.#begin(index));
    const change = () => {
      if (this.server.isUp) {
        this.server.change("/api/v1/services", `svc-${this.#random.between(0, 29)}`);
        this.server.change("/apis/discovery.k8s.io/v1/endpointslices", `slice-${this.#random.between(0, 29)}`);
      }
      this.clock.after(CHANGE_MS, change);
    };
    this.clock.after(START_WITHIN_MS, change);
  }

  #begin(index: number): void {
    for (const { path, kind, apiVersion, names, isOwn } of FOLLOWED)
      if (isOwn) this.server.collection(`${path}@${index}`, kind, apiVersion, names);
    const { hint } = this.options;
    this.nodes.push(new FleetNode(index, this.clock, this.server, this.#random, hint));
  }

  /** Lets time pass. @returns what was asked meanwhile, second by second. */
  pass(seconds: number): Curve {
    const from = Math.floor(this.clock.monotonicMs() / 1_000);
    this.clock.pass(seconds * 1_000);
    return Array.from({ length: seconds }, (_, n) => this.server.seconds.get(from + n) ?? NOTHING);
  }

  stop(): void {
    for (const node of this.nodes) node.stop();
  }
}

const NOTHING: Second = {
  requests: 0,
  watches: 0,
  lists: 0,
  leases: 0,
  probes: 0,
  connections: 0,
  bytes: 0,
  refused: 0,
};

/** One node: Holdfast, and kubelet before it. */
export class FleetNode {
  readonly holdfast: WayProcess;
  /** Errors nobody expected. */
  readonly errors: string[] = [];
  /** When the lease was last renewed at the API server, and when the link was last back, monotonic. */
  renewedAtMs = 0;
  backAtMs = 0;
  #isStopped = false;

  constructor(
    readonly index: number,
    private readonly clock: VirtualClock,
    server: FleetServer,
    random: Random,
    hint: number | undefined,
  ) {
    this.holdfast = new WayProcess({
      code: soundCode,
      clock,
      wire: { send: (request) => this.#sent(server, request) },
      node: {
        credential: { kind: "certificate", read: () => ({ certPem: NODE_PAIR.cert, keyPem: NODE_PAIR.key }) },
        peer: { ...PEER },
        fleetSize: hint,
      },
      disk: new MemoryDisk(),
      random: () => random.next(),
      limits: LIMITS,
      onInternalError: (error) => this.errors.push(String(error)),
      count() {},
      trace() {},
    });
    const { link } = this.holdfast;
    link.onChange((isOnline) => {
      server.leftBehind(index);
      if (isOnline) this.backAtMs = clock.monotonicMs();
    });
    const uplink = new AbortController();
    link.start(uplink.signal);
    for (const { path } of FOLLOWED) void this.#follow(path);
    this.#every(LEASE_MS, random.next() * LEASE_MS, () => this.#renew());
    this.#every(STATUS_MS, random.next() * STATUS_MS, () => this.#tellStatus());
    // Kubelet tells again what differs, once its writes count again.
    link.onChange((isOnline) => isOnline && clock.after(random.next() * LEASE_MS, () => this.#tellStatus()));
  }

  /** Whether every copy shows the API server's truth. */
  get hasCaughtUp(): boolean {
    const scopes = [...this.holdfast.scopes.all()];
    return scopes.length >= FOLLOWED.length && scopes.every(({ hasCaughtUp }) => hasCaughtUp);
  }

  stop(): void {
    this.#isStopped = true;
    this.holdfast.stop();
  }

  async #sent(server: FleetServer, request: Parameters<FleetServer["send"]>[1]): ReturnType<FleetServer["send"]> {
    const answer = await server.send(this.index, request);
    if (request.method === "PUT" && answer.status === 200) this.renewedAtMs = this.clock.monotonicMs();
    return answer;
  }

  #every(periodMs: number, firstMs: number, act: () => Promise<unknown>): void {
    const again = () => {
      if (this.#isStopped) return;
      act().catch(() => {});
      this.clock.after(periodMs, again);
    };
    this.clock.after(firstMs, again);
  }

  #renew(): Promise<unknown> {
    const body = `{"apiVersion":"coordination.k8s.io/v1","kind":"Lease","metadata":{"name":"edge","namespace":"kube-node-lease","uid":"lease","managedFields":"${"x".repeat(250)}"},"spec":{"holderIdentity":"edge","leaseDurationSeconds":40,"renewTime":"${new Date(this.clock.nowMs()).toISOString().replace("Z", "000Z")}"}}`;
    return this.holdfast.request(
      "",
      "PUT",
      "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/edge",
      body,
    );
  }

  #tellStatus(): Promise<unknown> {
    return this.holdfast.request("", "PATCH", "/api/v1/nodes/edge/status", '{"status":{"phase":"Running"}}');
  }

  /** A reflector: a list as of any moment, then watches from where it stands. */
  async #follow(path: string): Promise<void> {
    for (let pauseMs = 0; !this.#isStopped; pauseMs = 1_000) {
      await this.clock.sleep(pauseMs);
      const identity = identityOf(path);
      try {
        const list = await this.holdfast.request("", "GET", pathOf(identity, "", { resourceVersion: "0" }));
        if (list.status !== 200) continue;
        const { metadata } = JSON.parse(list.text) as { metadata: { resourceVersion: string } };
        const ended = Promise.withResolvers<void>();
        const sink: WatchSink = {
          write: () => true,
          end: () => ended.resolve(),
          onDrain: () => () => {},
        } as unknown as WatchSink;
        const request = { resourceVersion: metadata.resourceVersion, sendInitialEvents: false, allowBookmarks: true };
        await this.holdfast.watch(identity, { ...request, timeoutMs: 36_000_000 }, sink, () => {});
        await ended.promise;
      } catch {
        // Asked again after a second, as client-go does.
      }
    }
  }
}

function identityOf(path: string): ScopeIdentity {
  const [plain, fieldSelector = ""] = path.split("?") as [string, string?];
  const [, group = "", version, namespace = "", resource] =
    /^\/(?:api|apis\/([^/]+))\/([^/]+)(?:\/namespaces\/([^/]+))?\/([^/]+)$/.exec(plain)!;
  return {
    principal: PRINCIPAL,
    group,
    version: version!,
    resource: resource!,
    namespace,
    fieldSelector,
    labelSelector: "",
    representation: "json",
  };
}
