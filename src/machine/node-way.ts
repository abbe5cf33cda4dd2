/**
 * The node as one of its ways to the API server shows it: directly, or through Holdfast.
 */

import { jsonLog } from "../base/log.ts";
import { loadKubeconfig } from "../config/kubeconfig.ts";
import { nodeOf } from "../node/own-node.ts";

/** One answer, at most. */
const PATIENCE_MS = 5_000;

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
  const { server, caPem, credential } = loadKubeconfig(kubeconfigPath, { log: jsonLog(() => undefined) });
  if (credential.kind !== "certificate") throw new Error("kubelet goes by a token, not by a certificate");
  const own = nodeOf(credential);
  if (own === undefined) throw new Error("kubelet's certificate is not a node's");
  const { certPem: cert, keyPem: key } = credential.read();
  const get = async <T>(path: string, mayMiss = false): Promise<T | undefined> => {
    const response = await fetch(`${server}${path}`, {
      tls: { ca: caPem(), cert, key },
      redirect: "error",
      keepalive: false,
      headers: { Accept: "application/json" },
      signal: AbortSignal.timeout(PATIENCE_MS),
    });
    if (mayMiss && response.status === 404) return undefined;
    if (response.status !== 200) throw new Error(`${new URL(server).host} answers ${response.status}`);
    return (await response.json()) as T;
  };
  const name = encodeURIComponent(own.name);
  type Node = {
    metadata: { uid: string };
    spec?: object;
    status?: { conditions?: { type: string; status: string }[] };
  };
  const node = (await get<Node>(`/api/v1/nodes/${name}`))!;
  const lease = await get<{ spec?: { renewTime?: string } }>(
    `/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/${name}`,
    true,
  );
  const pods = (await get<{ items: Pod[] }>(`/api/v1/pods?fieldSelector=spec.nodeName%3D${name}`))!;
  return {
    name: own.name,
    uid: node.metadata.uid,
    spec: JSON.stringify(node.spec ?? {}),
    isReady: node.status?.conditions?.some(({ type, status }) => type === "Ready" && status === "True") ?? false,
    renewTime: lease?.spec?.renewTime ?? "",
    pods: Object.fromEntries(pods.items.map((pod) => [pod.metadata.uid, runningIds(pod)])),
  };
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
