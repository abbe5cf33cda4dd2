/**
 * The node as one of its ways to the API server shows it: directly, or through Holdfast.
 */

import { EdgeError } from "../base/errors.ts";
import { jsonLog } from "../base/log.ts";
import { loadKubeconfig } from "../config/kubeconfig.ts";
import { nodeOf } from "../node/own-node.ts";
import { findObject, getObject, type ApiWay } from "./api-ask.ts";

/** Kubelet's kubeconfig does not lead there as a node. */
export class NodeWayError extends EdgeError {
  override readonly name = "NodeWayError";
  readonly code = "NODE_WAY";
}

/** What a way shows of the node, in what matters to adopting it. */
export interface NodeView {
  readonly name: string;
  readonly uid: string;
  /** The node's spec as JSON: the same on both ways. */
  readonly spec: string;
  readonly isReady: boolean;
  /** When kubelet last renewed its lease; "" where there is none. */
  readonly renewTime: string;
  /** By pod UID the ids of its running containers. */
  readonly pods: Readonly<Record<string, readonly string[]>>;
}

/** Of a Node what says whether it is Ready. */
export interface ReadyNode {
  readonly status?: { readonly conditions?: readonly { readonly type: string; readonly status: string }[] };
}

/** Whether kubelet says so, and the control plane has heard it. */
export function isReady({ status }: ReadyNode): boolean {
  return status?.conditions?.some((one) => one.type === "Ready" && one.status === "True") ?? false;
}

interface Pod {
  metadata: { uid: string };
  status?: { containerStatuses?: { containerID?: string; state?: { running?: object } }[] };
}

/**
 * Looks at the node by a kubeconfig.
 *
 * @throws {Error} in words, when there is no such answer.
 */
export async function lookByWay(kubeconfigPath: string): Promise<NodeView> {
  const { own, way } = wayOf(kubeconfigPath);
  const name = encodeURIComponent(own.name);
  type Node = ReadyNode & { metadata: { uid: string }; spec?: object };
  const node = await getObject<Node>(way, `/api/v1/nodes/${name}`);
  type Lease = { spec?: { renewTime?: string } };
  const lease = await findObject<Lease>(way, `/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/${name}`);
  const pods = await getObject<{ items: Pod[] }>(way, `/api/v1/pods?fieldSelector=spec.nodeName%3D${name}`);
  return {
    name: own.name,
    uid: node.metadata.uid,
    spec: JSON.stringify(node.spec ?? {}),
    isReady: isReady(node),
    renewTime: lease?.spec?.renewTime ?? "",
    pods: Object.fromEntries(pods.items.map((pod) => [pod.metadata.uid, runningIds(pod)])),
  };
}

/** Whether the API server at that way's end knows such a node. @throws {Error} in words, when it says neither yes nor no. */
export async function isKnownByWay(kubeconfigPath: string): Promise<boolean> {
  const { own, way } = wayOf(kubeconfigPath);
  return (await findObject(way, `/api/v1/nodes/${encodeURIComponent(own.name)}`)) !== undefined;
}

/** A kubeconfig of kubelet's as a way. @throws {NodeWayError} when it is no node's. */
export function wayOf(kubeconfigPath: string): { readonly own: { readonly name: string }; readonly way: ApiWay } {
  const { server, caPem, credential } = loadKubeconfig(kubeconfigPath, { log: jsonLog(() => undefined) });
  if (credential.kind !== "certificate") throw new NodeWayError("kubelet goes by a token, not by a certificate");
  const own = nodeOf(credential);
  if (own === undefined) throw new NodeWayError("kubelet's certificate is not a node's");
  return { own, way: { server, ca: caPem(), pair: credential.read() } };
}

function runningIds({ status }: Pod): string[] {
  const running = status?.containerStatuses?.filter(({ state }) => state?.running !== undefined) ?? [];
  return running.flatMap(({ containerID }) => containerID ?? []);
}

/** What is missing from what ran before; undefined when all of it runs on. */
export function lostPods(before: NodeView, now: NodeView): string | undefined {
  for (const [uid, ids] of Object.entries(before.pods)) {
    const present = now.pods[uid];
    if (present === undefined) return `the pod with UID ${uid} is gone`;
    if (ids.some((id) => !present.includes(id))) return `a container of the pod with UID ${uid} was restarted`;
  }
  return undefined;
}
