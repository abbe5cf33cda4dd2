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

import { readdirSync } from "node:fs";
import { isIP } from "node:net";
import { hostPortText, parseHostPort, type HostPort } from "../base/address.ts";
import { EdgeError } from "../base/errors.ts";
import { findObject, getObject, type ApiWay } from "./api-ask.ts";
import { isReady, type ReadyNode } from "./node-way.ts";
import { placeOf, textAt, type Machine } from "./machine.ts";
import { until } from "./until.ts";

/** What the configuration says of the pods' way is no way. */
export class PodWayError extends EdgeError {
  override readonly name = "PodWayError";
  readonly code = "POD_WAY";
}

/** Where the pods' way begins and ends. */
export interface PodWay {
  /** Of Service default/kubernetes. */
  readonly serviceAddress: string;
  /** ADDRESS:PORT, on this machine's loopback device. */
  readonly listen: string;
}

/** Link-local, for this node alone; other tools on nodes are known to take .20.10 and .169.254. */
const LOCAL = "169.254.102.68";
/** IPv6's link-local kind needs a device beside it, which no rule of the kernel's can name: one of our own, unique local. */
const LOCAL_V6 = "fd48:6f6c:6466:6173::1";
const PORT = 10_268;
/** kubeadm's, by the name of their containers. */
const ADD_ONS = ["kube-proxy", "coredns"];
const PODS = "/var/lib/kubelet/pods";
/** Kubelet lays volumes anew within a minute or so. */
const VOLUMES_MS = 90_000;
const STARTED_MS = 30_000;

/** The way of this cluster's pods. @returns undefined where the cluster has no Service of that name, or it has no address. */
export async function podWayOf(direct: ApiWay): Promise<PodWay | undefined> {
  const service = await findObject<{ spec?: { clusterIP?: string } }>(
    direct,
    "/api/v1/namespaces/default/services/kubernetes",
  );
  const address = service?.spec?.clusterIP ?? "";
  return isIP(address) === 0 ? undefined : podWayFrom(address);
}

/** The way from a Service's address to one of ours of its family. */
export function podWayFrom(serviceAddress: string): PodWay {
  return { serviceAddress, listen: hostPortText({ host: isIP(serviceAddress) === 6 ? LOCAL_V6 : LOCAL, port: PORT }) };
}

/** The settings of pod-way.sh. @param server of the API server, where that port leads without us. */
export function podWaySettings({ serviceAddress, listen }: PodWay, server: string): string {
  const { hostname, port } = new URL(server);
  const local = localOf(listen);
  return `# Made by "holdfast adopt", for pod-way.sh.
SERVICE=${serviceAddress}
PORT=${local.port}
LOCAL=${local.host}
API_SERVER=${hostname.replace(/^\[|\]$/g, "")}
API_PORT=${port === "" ? 443 : port}
`;
}

function localOf(listen: string): HostPort {
  const address = parseHostPort(listen);
  if (address !== undefined) return address;
  throw new PodWayError(
    `podAccess.listen is "${listen.slice(0, 64)}": expected ADDRESS:PORT, such as ${LOCAL}:${PORT}`,
  );
}

/** The origin that pods are told. */
export function podServer({ serviceAddress, listen }: PodWay): string {
  return `https://${hostPortText({ host: serviceAddress, port: localOf(listen).port })}`;
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
      const ca = textAt(machine, `${volumes}/kubernetes.io~projected/${volume}/ca.crt`);
      if (ca !== undefined && !ca.includes(authority)) return "kubelet has not laid the CA into every pod";
    }
    const kubeconfig = textAt(machine, `${volumes}/kubernetes.io~configmap/kube-proxy/kubeconfig.conf`);
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
