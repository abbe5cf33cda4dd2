/**
 * The pods' way through Holdfast: what adopting writes for it, whether it
 * leads there, and the two add-ons that must take it before the first cut.
 *
 *   containers of this node -> SERVICE:PORT -> (pod-way.sh) -> LOCAL:PORT -> Holdfast
 *
 * Kubelet tells the port to every container that it starts from now on; what
 * runs already goes on as it was. Of kubeadm's own kube-proxy and CoreDNS are
 * started anew once, so that what they read is kept here: without them Services
 * and names would not come back in a cut.
 */

import { readdirSync, readFileSync } from "node:fs";
import { findObject, getObject, type ApiWay } from "./api-ask.ts";
import { isReady, type ReadyNode } from "./node-way.ts";
import { placeOf, type Machine } from "./machine.ts";
import { until } from "./until.ts";

/** Where the pods' way begins and ends. */
export interface PodWay {
  /** Of Service default/kubernetes. */
  readonly serviceAddress: string;
  /** ADDRESS:PORT, link-local. */
  readonly listen: string;
}

/** Link-local, for this node alone; other tools on nodes are known to take .20.10 and .169.254. */
const LOCAL = "169.254.102.68";
const PORT = 10_268;
/** kubeadm's, by the name of their containers. */
const ADD_ONS = ["kube-proxy", "coredns"];
const PODS = "/var/lib/kubelet/pods";
/** Kubelet lays volumes anew within a minute or so. */
const VOLUMES_MS = 90_000;
const STARTED_MS = 30_000;

/** The way of this cluster's pods. @returns undefined where the cluster has no Service of that name, or one that link-local cannot serve. */
export async function podWayOf(direct: ApiWay): Promise<PodWay | undefined> {
  const service = await findObject<{ spec?: { clusterIP?: string } }>(
    direct,
    "/api/v1/namespaces/default/services/kubernetes",
  );
  const serviceAddress = service?.spec?.clusterIP ?? "";
  // An address of IPv6's link-local kind needs a device beside it, which no rule of the kernel's can name.
  if (!/^[0-9.]+$/.test(serviceAddress)) return undefined;
  return { serviceAddress, listen: `${LOCAL}:${PORT}` };
}

/** The settings of pod-way.sh. @param server of the API server, where that port leads without us. */
export function podWaySettings({ serviceAddress, listen }: PodWay, server: string): string {
  const { hostname, port } = new URL(server);
  const at = listen.lastIndexOf(":");
  return `# Made by "holdfast adopt", for pod-way.sh.
SERVICE=${serviceAddress}
PORT=${listen.slice(at + 1)}
LOCAL=${listen.slice(0, at)}
API_SERVER=${hostname.replace(/^\[|\]$/g, "")}
API_PORT=${port === "" ? 443 : port}
`;
}

/** The origin that pods are told. */
export function podServer({ serviceAddress, listen }: PodWay): string {
  return `https://${serviceAddress}:${listen.slice(listen.lastIndexOf(":") + 1)}`;
}

/**
 * Starts kube-proxy's and CoreDNS's containers anew, one after the other.
 *
 * @param through kubelet's way through us. @returns the names of those that were.
 * @throws {Error} in words, when they were not: they follow at their next start.
 */
export async function leadAddOns(
  machine: Machine,
  way: PodWay,
  { through, nodeName, caPem }: { readonly through: ApiWay; readonly nodeName: string; readonly caPem: string },
): Promise<string[]> {
  const led: string[] = [];
  const [authority = caPem] = caPem.split("-----END");
  await until(machine, VOLUMES_MS, async () => staleVolume(machine, authority, podServer(way)));
  for (const name of ADD_ONS) {
    const ids = await machine.containers(name);
    if (ids === undefined || ids.length === 0) continue;
    for (const id of ids) {
      const before = new Set(await machine.containers(name));
      await machine.stopContainer(id);
      await until(machine, STARTED_MS, async () => {
        const now = (await machine.containers(name)) ?? [];
        if (now.includes(id) || now.length < before.size) return `${name} has not been started again`;
        return notReady(through, nodeName, name);
      });
    }
    led.push(name);
  }
  return led;
}

/** A file of a pod's that still says the old; undefined when none does. */
function staleVolume(machine: Machine, authority: string, server: string): string | undefined {
  for (const pod of namesIn(machine, PODS)) {
    const volumes = `${PODS}/${pod}/volumes`;
    for (const volume of namesIn(machine, `${volumes}/kubernetes.io~projected`)) {
      const ca = textOf(machine, `${volumes}/kubernetes.io~projected/${volume}/ca.crt`);
      if (ca !== undefined && !ca.includes(authority)) return "kubelet has not laid the CA into every pod";
    }
    const kubeconfig = textOf(machine, `${volumes}/kubernetes.io~configmap/kube-proxy/kubeconfig.conf`);
    if (kubeconfig !== undefined && !kubeconfig.includes(server))
      return "kubelet has not laid kube-proxy's kubeconfig anew, or it is not as kubeadm makes it";
  }
  return undefined;
}

async function notReady(through: ApiWay, nodeName: string, name: string): Promise<string | undefined> {
  type Pod = ReadyNode & { metadata: { name: string } };
  const { items } = await getObject<{ items: Pod[] }>(
    through,
    `/api/v1/namespaces/kube-system/pods?fieldSelector=spec.nodeName%3D${encodeURIComponent(nodeName)}`,
  );
  const waiting = items.find((pod) => pod.metadata.name.startsWith(`${name}-`) && !isReady(pod));
  return waiting === undefined ? undefined : `pod ${waiting.metadata.name} is not ready again`;
}

function namesIn(machine: Machine, folder: string): string[] {
  try {
    return readdirSync(placeOf(machine, folder));
  } catch {
    return [];
  }
}

function textOf(machine: Machine, path: string): string | undefined {
  try {
    return readFileSync(placeOf(machine, path), "utf8");
  } catch {
    return undefined;
  }
}
