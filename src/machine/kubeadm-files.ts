/**
 * What `kubeadm join` leaves on a worker, file by file, so that kubeadm,
 * kubelet and people find a node as they know it.
 *
 *   /etc/kubernetes/pki/ca.crt                      who may ask kubelet
 *   /var/lib/kubelet/pki/kubelet-client-current.pem  kubelet's own pair, which it renews
 *   /var/lib/kubelet/config.yaml                     ConfigMap kube-system/kubelet-config
 *   /var/lib/kubelet/instance-config.yaml            what is this machine's alone
 *   /var/lib/kubelet/kubeadm-flags.env               labels, taints, name
 *   /etc/kubernetes/kubelet.conf                     last: with it the machine is a node
 *
 * Labels and taints go where kubeadm puts them, not into a drop-in of ours:
 * `kubeadm upgrade node` keeps that file, and a node that is taken back from
 * behind Holdfast keeps them.
 *
 * Source: k8s.io/kubernetes/cmd/kubeadm/app/phases/kubelet.
 */

import { existsSync, mkdirSync, readFileSync, renameSync, rmSync, symlinkSync } from "node:fs";
import { dirname } from "node:path";
import { writeFileAtomically } from "../base/atomic-file.ts";
import { EdgeError } from "../base/errors.ts";
import type { KeyPair } from "../certificates/authority.ts";
import type { ClusterInfo } from "./cluster-info.ts";
import type { JoinOptions } from "./join-options.ts";
import { placeOf, type Machine } from "./machine.ts";

/** What is there is not from this cluster, or what the cluster says cannot be used. */
export class KubeadmFilesError extends EdgeError {
  override readonly name = "KubeadmFilesError";
  readonly code = "KUBEADM_FILES";
}

/** Kubelet's kubeconfig: a machine that has it is a node. */
export const KUBELET_CONF = "/etc/kubernetes/kubelet.conf";
const CA_FILE = "/etc/kubernetes/pki/ca.crt";
const MANIFESTS = "/etc/kubernetes/manifests";
const KUBELET_DIR = "/var/lib/kubelet";
const CURRENT = `${KUBELET_DIR}/pki/kubelet-client-current.pem`;
/** Of several the first, as kubeadm would have asked which. */
const RUNTIMES = ["/run/containerd/containerd.sock", "/run/crio/crio.sock", "/run/cri-dockerd.sock"];

/** What is to be written. */
export interface KubeadmContent {
  readonly options: JoinOptions;
  readonly cluster: ClusterInfo;
  /** The text of ConfigMap kubelet-config. */
  readonly kubeletConfig: string;
  readonly pair: KeyPair;
  readonly hostName: string;
}

/** Writes them all; may be done again. @throws {KubeadmFilesError} before anything is written. */
export async function writeKubeadmFiles(machine: Machine, content: KubeadmContent): Promise<void> {
  const { options, cluster, pair } = content;
  const at = (path: string) => placeOf(machine, path);
  if (existsSync(at(CA_FILE)) && readFileSync(at(CA_FILE), "utf8").trim() !== cluster.caPem.trim())
    throw new KubeadmFilesError(
      `Cannot join: ${CA_FILE} is another cluster's; clear this machine first: kubeadm reset`,
    );
  const runtime = `unix://${RUNTIMES.find((path) => existsSync(at(path))) ?? RUNTIMES[0]}`;
  const usesResolved = await machine.systemctl("is-active", "--quiet", "systemd-resolved");
  const config = kubeletConfigOf(content.kubeletConfig, runtime, usesResolved);
  const put = (path: string, text: string, mode: number) => {
    mkdirSync(dirname(at(path)), { recursive: true, mode: 0o755 });
    writeFileAtomically(at(path), text, mode);
  };
  mkdirSync(at(MANIFESTS), { recursive: true, mode: 0o755 });
  put(CA_FILE, cluster.caPem, 0o644);
  put(`${KUBELET_DIR}/config.yaml`, config, 0o644);
  put(`${KUBELET_DIR}/instance-config.yaml`, `containerRuntimeEndpoint: "${runtime}"\n`, 0o644);
  put(`${KUBELET_DIR}/kubeadm-flags.env`, flagsOf(options, content.hostName), 0o644);
  putPair(machine, pair);
  put(KUBELET_CONF, kubeletConf(cluster, at(CURRENT)), 0o600);
}

function kubeletConfigOf(text: string, containerRuntimeEndpoint: string, usesResolved: boolean): string {
  let document: unknown;
  try {
    document = Bun.YAML.parse(text);
  } catch {
    // Said below.
  }
  const { kind } = (document ?? {}) as { kind?: unknown };
  if (kind !== "KubeletConfiguration")
    throw new KubeadmFilesError(
      "Cannot join: ConfigMap kube-system/kubelet-config holds no KubeletConfiguration; on the control plane: kubeadm init phase upload-config kubelet",
    );
  const config = document as Record<string, unknown>;
  return `${Bun.YAML.stringify(
    {
      ...config,
      ...(usesResolved && config["resolvConf"] === undefined ? { resolvConf: "/run/systemd/resolve/resolv.conf" } : {}),
      containerRuntimeEndpoint,
    },
    null,
    2,
  ).trimEnd()}\n`;
}

function flagsOf({ labels, taints, nodeName }: JoinOptions, hostName: string): string {
  const pairs = Object.entries(labels).map(([key, value]) => `${key}=${value}`);
  const flags = [
    ...(pairs.length === 0 ? [] : [`--node-labels=${pairs.join(",")}`]),
    ...(taints.length === 0 ? [] : [`--register-with-taints=${taints.join(",")}`]),
    ...(nodeName === hostName.toLowerCase() ? [] : [`--hostname-override=${nodeName}`]),
  ];
  return `KUBELET_KUBEADM_ARGS="${flags.join(" ")}"\n`;
}

/** As kubelet keeps its pairs: a file of its own each, and a link to the one in office. */
function putPair(machine: Machine, { certPem, keyPem }: KeyPair): void {
  const name = `kubelet-client-${new Date().toISOString().replaceAll(":", "-").slice(0, 19)}.pem`;
  const current = placeOf(machine, CURRENT);
  mkdirSync(dirname(current), { recursive: true, mode: 0o755 });
  writeFileAtomically(`${dirname(current)}/${name}`, `${certPem.trimEnd()}\n${keyPem.trimEnd()}\n`, 0o600);
  const link = `${current}.new`;
  rmSync(link, { force: true });
  symlinkSync(name, link);
  renameSync(link, current);
}

/** What kubelet makes of its bootstrap; bypass.sh reads its lines. */
function kubeletConf({ server, caPem }: ClusterInfo, pair: string): string {
  return `apiVersion: v1
kind: Config
clusters:
- name: default-cluster
  cluster:
    certificate-authority-data: ${Buffer.from(caPem).toString("base64")}
    server: ${server}
contexts:
- name: default-context
  context:
    cluster: default-cluster
    namespace: default
    user: default-auth
current-context: default-context
users:
- name: default-auth
  user:
    client-certificate: ${pair}
    client-key: ${pair}
`;
}
