/**
 * Which names and addresses are somebody else's, whatever a node says of itself.
 *
 * A kubelet writes its addresses into its Node object itself, and its serving
 * certificate is signed by a CA that pods believe. So before a name is
 * certified for one node it must be nobody else's:
 *
 *   the API server's     its endpoints, the host it is asked by, and every name in the certificate it serves:
 *                        the load balancer, the control plane's own names, the first address of the Services
 *   a Service's          its cluster addresses, NAME.NAMESPACE, and NAME for all but a node of that name
 *   another node's       its name, and what stands in its status.addresses
 *
 * One thing besides its own addresses is a node's: its place, where a gateway
 * of ours takes the API server's connections for it. It is known by what the
 * gateway keeps in the guard's own namespace, where no node writes:
 *
 *   mode service         the cluster addresses of the Service that is named and annotated for that node
 *   mode port            the gateway's addresses, as its ports' ConfigMap has them, for a node with a port there
 *
 * What a node's status says of a place counts for nothing.
 *
 * A node that an administrator labelled as control plane may have the API
 * server's; no kubelet can give itself that label. External addresses of
 * Services are left out: everybody who may create a Service may claim any
 * there, and some load balancers are the nodes themselves; whoever claims the
 * address of a node would stop its renewals.
 */

import { isIPv6 } from "node:net";
import type { V1ConfigMap, V1EndpointSlice, V1Service } from "@kubernetes/client-node";
import * as v from "valibot";
import type { Clock } from "../base/clock.ts";
import { ADDRESSES_ANNOTATION, NODE_ANNOTATION, PLACE_LABELS, placeNameOf, PORTS_NAME } from "../kube/tunnel-names.ts";
import { reads } from "../kube/wire.ts";
import type { Collections } from "../cluster/api.ts";
import type { NodeFacts } from "./facts.ts";

/** Where it is read. */
export interface TakenNamesOptions {
  readonly client: Collections;
  readonly clock: Clock;
  readonly nodes: () => Iterable<Pick<NodeFacts, "name" | "addresses">>;
  /** Where the gateway keeps its objects: the guard's own. */
  readonly namespace: string;
  /** A ConfigMap; undefined for none. */
  readonly readConfigMap: (namespace: string, name: string) => Promise<unknown>;
  /** Of the certificate that the API server serves, and the host it is asked by. */
  readonly apiServerNames: () => Promise<readonly string[]>;
}

/** For whom a name is asked. */
export interface Claimant {
  readonly nodeName: string;
  /** Labelled by an administrator. */
  readonly isControlPlane: boolean;
}

/** Whose a name is. */
export interface Taken {
  readonly by: "control-plane" | "service" | "node";
  /** For people: `node "gw-2"`. */
  readonly whose: string;
}

/** Asks for one name or address; undefined when it is nobody else's. */
export type TakenBy = (name: string, claimant: Claimant) => Taken | undefined;

/** Whose names are, and where nodes have a place. */
export interface Names {
  readonly takenBy: TakenBy;
  /** The addresses, by value, where the gateway takes connections for a node. */
  readonly placeOf: (nodeName: string) => ReadonlySet<string>;
}

const SERVICES_FOR_MS = 30_000;
const CERTIFICATE_FOR_MS = 600_000;
const PAGE = 500;
const ENDPOINTS =
  "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices?labelSelector=kubernetes.io%2Fservice-name%3Dkubernetes";

const servicesSchema = reads<V1Service>()(
  v.object({
    metadata: v.object({
      name: v.string(),
      namespace: v.string(),
      labels: v.nullish(v.record(v.string(), v.string()), {}),
      annotations: v.nullish(v.record(v.string(), v.string()), {}),
    }),
    spec: v.nullish(v.object({ clusterIPs: v.nullish(v.array(v.string()), []) })),
  }),
);
const portsSchema = reads<V1ConfigMap>()(
  v.object({
    metadata: v.object({ annotations: v.nullish(v.record(v.string(), v.string()), {}) }),
    data: v.nullish(v.record(v.string(), v.string()), {}),
  }),
);
const slicesSchema = reads<V1EndpointSlice>()(
  v.object({ endpoints: v.nullish(v.array(v.object({ addresses: v.array(v.string()) })), []) }),
);

/** The reader; what changes seldom is kept for a while. */
export class TakenNames {
  readonly #services: () => Promise<Services>;
  readonly #ports: () => Promise<GatewayPorts>;
  readonly #apiServer: () => Promise<readonly string[]>;

  constructor(private readonly options: TakenNamesOptions) {
    const { clock } = options;
    this.#services = kept(clock, SERVICES_FOR_MS, () => readServices(options.client, options.namespace));
    this.#ports = kept(clock, SERVICES_FOR_MS, () => readPorts(options));
    this.#apiServer = kept(clock, CERTIFICATE_FOR_MS, options.apiServerNames);
  }

  /** As it is now. @throws when something cannot be read: then nothing is known to be free. */
  async read(): Promise<Names> {
    const { client, nodes } = this.options;
    const services = await this.#services();
    const slices = await everyItem(client, ENDPOINTS);
    const endpoints = slices.flatMap((item) => v.parse(slicesSchema, item).endpoints ?? []);
    const addresses = endpoints.flatMap((endpoint) => endpoint.addresses);
    const apiServer = new Set([...(await this.#apiServer()), ...addresses].map(byValue));
    const ports = await this.#ports();
    const claims = claimsOf(nodes());
    // In mode service a node has a port too, behind its Service, and the gateway no addresses.
    const placeOf = (nodeName: string) =>
      (services.places.get(nodeName) ?? NOWHERE).union(ports.nodes.has(nodeName) ? ports.addresses : NOWHERE);
    const takenBy: TakenBy = (name, { nodeName, isControlPlane }) => {
      const value = byValue(name);
      // Shown to be a node's place by the gateway, it stands in the status of every node that has its place there.
      if (placeOf(nodeName).has(value) && !apiServer.has(value)) return undefined;
      const service = services.addresses.get(value) ?? services.fullNames.get(value);
      const isOwnName = value === nodeName || value === nodeName.split(".")[0];
      if (service !== undefined && value !== nodeName) return { by: "service", whose: `the Service ${service}` };
      if (apiServer.has(value) && !isControlPlane) return { by: "control-plane", whose: "the API server" };
      if (isOwnName) return undefined;
      const shortly = services.shortNames.get(value);
      if (shortly !== undefined) return { by: "service", whose: `the Service ${shortly}` };
      const other = [...(claims.get(value) ?? [])].find((node) => node !== nodeName);
      return other === undefined ? undefined : { by: "node", whose: `node "${other}"` };
    };
    return { takenBy, placeOf };
  }
}

const NOWHERE: ReadonlySet<string> = new Set();

interface GatewayPorts {
  readonly addresses: ReadonlySet<string>;
  /** Who has a port there. */
  readonly nodes: ReadonlySet<string>;
}

/** Without a gateway, or the right to look, nobody has a place by a port. */
async function readPorts({ namespace, readConfigMap }: TakenNamesOptions): Promise<GatewayPorts> {
  const found = await readConfigMap(namespace, PORTS_NAME).catch(() => undefined);
  const parsed = v.safeParse(portsSchema, found);
  if (!parsed.success) return { addresses: NOWHERE, nodes: NOWHERE };
  const { metadata, data } = parsed.output;
  const addresses = (metadata.annotations[ADDRESSES_ANNOTATION] ?? "").split(",").map((one) => one.trim());
  return {
    addresses: new Set(addresses.filter((one) => one !== "").map(byValue)),
    nodes: new Set(Object.values(data)),
  };
}

interface Services {
  readonly addresses: ReadonlyMap<string, string>;
  readonly fullNames: ReadonlyMap<string, string>;
  readonly shortNames: ReadonlyMap<string, string>;
  /** The addresses of nodes' Services, by the node. */
  readonly places: ReadonlyMap<string, ReadonlySet<string>>;
}

async function readServices(client: Collections, ownNamespace: string): Promise<Services> {
  const addresses = new Map<string, string>();
  const fullNames = new Map<string, string>();
  const shortNames = new Map<string, string>();
  const places = new Map<string, ReadonlySet<string>>();
  for (const item of await everyItem(client, "/api/v1/services")) {
    const { metadata, spec } = v.parse(servicesSchema, item);
    const title = `${metadata.namespace}/${metadata.name}`;
    fullNames.set(`${metadata.name}.${metadata.namespace}`, title);
    shortNames.set(metadata.name, title);
    const held = (spec?.clusterIPs ?? []).filter((address) => address !== "None").map(byValue);
    for (const address of held) addresses.set(address, title);
    const nodeName = metadata.namespace === ownNamespace ? placedNode(metadata) : undefined;
    if (nodeName !== undefined) places.set(nodeName, new Set(held));
  }
  return { addresses, fullNames, shortNames, places };
}

/** The node whose place a Service is: by name, labels and annotation alike. */
function placedNode({
  name,
  labels,
  annotations,
}: Readonly<{ name: string; labels: Record<string, string>; annotations: Record<string, string> }>):
  string | undefined {
  const nodeName = annotations[NODE_ANNOTATION];
  const isPlace = Object.entries(PLACE_LABELS).every(([key, value]) => labels[key] === value);
  return isPlace && nodeName !== undefined && name === placeNameOf(nodeName) ? nodeName : undefined;
}

function claimsOf(nodes: Iterable<Pick<NodeFacts, "name" | "addresses">>): Map<string, Set<string>> {
  const claims = new Map<string, Set<string>>();
  for (const { name, addresses } of nodes)
    for (const claimed of [name, ...addresses.map(({ address }) => address)]) {
      const value = byValue(claimed);
      claims.set(value, (claims.get(value) ?? new Set()).add(name));
    }
  return claims;
}

async function everyItem(client: Collections, path: string): Promise<unknown[]> {
  const found: unknown[] = [];
  let next: string | undefined;
  do {
    const page = await client.list(path, { limit: PAGE, next });
    found.push(...page.items);
    ({ next } = page);
  } while (next !== undefined);
  return found;
}

/** The same again for so long; a failure is not kept. */
function kept<T>(clock: Clock, forMs: number, read: () => Promise<T>): () => Promise<T> {
  let last: { readonly value: T; readonly atMs: number } | undefined;
  return async () => {
    const nowMs = clock.monotonicMs();
    if (last === undefined || nowMs - last.atMs >= forMs) last = { value: await read(), atMs: nowMs };
    return last.value;
  };
}

/** Names in small letters, IPv6 in its one shortest form: two that are equal to a client are equal here. */
export function byValue(name: string): string {
  if (!isIPv6(name)) return name.toLowerCase();
  try {
    return new URL(`http://[${name}]`).hostname.slice(1, -1);
  } catch {
    return name; // with a zone: no certificate has one
  }
}
