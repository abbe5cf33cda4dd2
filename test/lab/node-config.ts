/**
 * The configuration files of a lab node's programs, as text.
 */
import type { Pki } from "./pki.ts";

/** Where cluster DNS is asked: a ClusterIP, so that kube-proxy must work too. */
export const DNS_ADDRESS = "10.96.0.10";

/** How pods are connected: "host" shares the node's network, "bridge" gives each its own address. */
export type PodNetwork = "host" | "bridge";

/** containerd's own. */
export function containerdConfig(node: {
  /** What stays over a reboot. */
  readonly root: string;
  /** What does not. */
  readonly state: string;
  readonly socket: string;
  readonly cniFolder: string;
  readonly pauseImage: string;
  readonly pluginsFolder: string | undefined;
}): string {
  const plugins = node.pluginsFolder === undefined ? "" : `bin_dir = "${node.pluginsFolder}"`;
  return `version = 2
root = "${node.root}"
state = "${node.state}"
[grpc]
  address = "${node.socket}"
[plugins."io.containerd.grpc.v1.cri"]
  # Without CAP_SYS_RESOURCE every sandbox would fail.
  restrict_oom_score_adj = true
  # Below the state folder, so that a reboot finds and clears them.
  netns_mounts_under_state_dir = true
  sandbox_image = "${node.pauseImage}"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
  [plugins."io.containerd.grpc.v1.cri".cni]
    conf_dir = "${node.cniFolder}"
    ${plugins}
`;
}

/** The list that containerd hands to the CNI plugins; each pod gets an address of the subnet, such as 10.244.1.0/24. */
export function bridgeConfig(leasesFolder: string, subnet: string): object {
  const ipam = {
    type: "host-local",
    ranges: [[{ subnet }]],
    routes: [{ dst: "0.0.0.0/0" }],
    dataDir: leasesFolder,
  };
  return {
    cniVersion: "1.0.0",
    name: "lab",
    plugins: [
      { type: "bridge", bridge: "cni0", isGateway: true, ipMasq: true, hairpinMode: true, ipam },
      { type: "portmap", capabilities: { portMappings: true } },
    ],
  };
}

/** Kubelet's, with its defaults wherever the machine allows. */
export function kubeletConfig(node: {
  readonly pki: Pki;
  /** Its serving certificate's name in the PKI; undefined where it asks the cluster for one. */
  readonly serving: string | undefined;
  readonly cgroup: string;
  readonly socket: string;
  readonly manifests: string;
}): object {
  const { pki } = node;
  return {
    apiVersion: "kubelet.config.k8s.io/v1beta1",
    kind: "KubeletConfiguration",
    failCgroupV1: false,
    cgroupDriver: "cgroupfs",
    cgroupRoot: `/${node.cgroup}`,
    enforceNodeAllocatable: [],
    failSwapOn: false,
    containerRuntimeEndpoint: `unix://${node.socket}`,
    staticPodPath: node.manifests,
    clusterDNS: [DNS_ADDRESS],
    clusterDomain: "cluster.local",
    authentication: { x509: { clientCAFile: pki.ca }, anonymous: { enabled: false }, webhook: { enabled: true } },
    authorization: { mode: "Webhook" },
    ...(node.serving === undefined
      ? { serverTLSBootstrap: true }
      : { tlsCertFile: pki.certificate(node.serving), tlsPrivateKeyFile: pki.key(node.serving) }),
    evictionHard: { "nodefs.available": "1%", "imagefs.available": "1%", "memory.available": "100Mi" },
  };
}

/** kube-proxy's, in nftables mode; the conntrack settings are the machine's and stay as they are. */
export function kubeProxyConfig(kubeconfig: string, nodeName: string): object {
  return {
    apiVersion: "kubeproxy.config.k8s.io/v1alpha1",
    kind: "KubeProxyConfiguration",
    mode: "nftables",
    clientConnection: { kubeconfig },
    hostnameOverride: nodeName,
    clusterCIDR: "10.244.0.0/16",
    conntrack: { maxPerCore: 0, min: 0, tcpEstablishedTimeout: "0s", tcpCloseWaitTimeout: "0s" },
    healthzBindAddress: "127.0.0.1:10256",
    metricsBindAddress: "127.0.0.1:10249",
  };
}

/** CoreDNS's, for cluster.local, on the node's own address. */
export function corefile(address: string, kubeconfig: string): string {
  return `.:53 {
  bind ${address}
  errors
  ready 127.0.0.1:8181
  kubernetes cluster.local {
    kubeconfig ${kubeconfig}
  }
}
`;
}
