/**
 * What kubelet alone is shown otherwise, so that the pods it starts come to
 * the API server through this node's Holdfast:
 *
 *   Service default/kubernetes          its port is ours: kubelet writes that into containers' environment
 *   ConfigMap kube-root-ca.crt          the cluster's CA, and ours behind it
 *   ConfigMap kube-system/kube-proxy    the same address in the kubeconfig that kubeadm lays there
 *
 * The address stays the Service's own. So what was started here is served by
 * Holdfast and by the API server alike: who leads that one port (pod-way.sh)
 * decides, and nobody has to be started anew when it changes.
 */

/** Where pods find Holdfast, and the CA by which they know it. */
export interface PodAccess {
  /** The cluster address of Service default/kubernetes. */
  readonly serviceAddress: string;
  readonly port: number;
  /** Our CA, and those before it that have not ended; PEM. */
  readonly caPem: string;
}

interface Named {
  metadata?: { name?: string; namespace?: string };
}
interface ConfigMap extends Named {
  data?: Record<string, string>;
}
interface Service extends Named {
  spec?: { ports?: { name?: string; port?: number }[] };
}

/** Names one of which is in every object that may have to be changed, for a look before anything is parsed. */
const MARKS = ['"kube-root-ca.crt"', '"kube-proxy"', '"kubernetes"'].map((mark) => Buffer.from(mark));
const ROOT_CA = "ca.crt";
const PROXY_KUBECONFIG = "kubeconfig.conf";
const SERVER = /^(\s*server:\s*).*$/m;
/** kubeadm's kube-proxy trusts what every pod does. */
const TRUSTS_ROOT_CA = /^\s*certificate-authority:\s*\/var\/run\/secrets\/kubernetes\.io\/serviceaccount\/ca\.crt\s*$/m;

/** Whether such objects are among those of this resource. */
export function isShownOtherwise(group: string, resource: string): boolean {
  return group === "" && (resource === "services" || resource === "configmaps");
}

/**
 * An object, a list's item or a watch's event, as kubelet sees it.
 *
 * @returns the same bytes where nothing is to be changed.
 */
export function shownToKubelet(bytes: Uint8Array, resource: string, access: PodAccess): Uint8Array {
  const view = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
  if (!MARKS.some((mark) => view.includes(mark))) return bytes;
  let document: unknown;
  try {
    document = JSON.parse(view.toString("utf8"));
  } catch {
    return bytes;
  }
  const event = document as { type?: unknown; object?: unknown } | null;
  const isEvent = typeof event?.type === "string" && typeof event.object === "object" && event.object !== null;
  const object = (isEvent ? event.object : document) as Named | null;
  const isChanged = resource === "services" ? changeService(object, access) : changeConfigMap(object, access);
  if (!isChanged) return bytes;
  const end = bytes.at(-1) === 0x0a ? "\n" : "";
  return Buffer.from(`${JSON.stringify(document)}${end}`);
}

function changeService(service: Service | null, { port }: PodAccess): boolean {
  const { name, namespace } = service?.metadata ?? {};
  if (name !== "kubernetes" || namespace !== "default") return false;
  const https = service!.spec?.ports?.find((one) => one.name === "https");
  if (https === undefined) return false;
  https.port = port;
  return true;
}

function changeConfigMap(configMap: ConfigMap | null, access: PodAccess): boolean {
  const { name, namespace } = configMap?.metadata ?? {};
  const data = configMap?.data;
  if (data === undefined) return false;
  if (name === "kube-root-ca.crt" && data[ROOT_CA] !== undefined) {
    data[ROOT_CA] = `${data[ROOT_CA].trimEnd()}\n${access.caPem}`;
    return true;
  }
  const kubeconfig = data[PROXY_KUBECONFIG];
  if (name !== "kube-proxy" || namespace !== "kube-system" || kubeconfig === undefined) return false;
  if (!SERVER.test(kubeconfig) || !TRUSTS_ROOT_CA.test(kubeconfig)) return false;
  const { serviceAddress, port } = access;
  const host = serviceAddress.includes(":") ? `[${serviceAddress}]` : serviceAddress;
  data[PROXY_KUBECONFIG] = kubeconfig.replace(SERVER, `$1https://${host}:${port}`);
  return true;
}
