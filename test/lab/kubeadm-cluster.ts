/**
 * What `kubeadm init` leaves in a cluster for those who join, told to the lab's
 * API server by kubeadm's own phases.
 */
import { createHash, X509Certificate } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { programPath } from "./build.ts";
import { ADD_ON_REPOSITORY } from "./machine.ts";
import { runProcess } from "./processes.ts";
import { startWorld, type World, type WorldOptions } from "./world.ts";

const TOKEN = "abcdef.0123456789abcdef";

/** What a kubeadm cluster has beside its defaults. */
export interface KubeadmCluster {
  /** By which machines join. */
  readonly token: string;
  /** What kubelets are told beside kubeadm's defaults. */
  readonly kubelet: object;
  /** More of the ClusterConfiguration. */
  readonly cluster?: object;
  /** Documents beside the three that every cluster has. */
  readonly documents?: readonly object[];
  /** Phases of `kubeadm init addon`; default none. */
  readonly addOns?: readonly string[];
  readonly controllerManagerArguments?: readonly string[];
}

/** A control plane that admits by token, with kubeadm's records in it. */
export async function startJoinableWorld(wanted: KubeadmCluster): Promise<World> {
  const world = await startWorld({
    controllerManager: true,
    scheduler: true,
    apiServerArguments: ["--enable-bootstrap-token-auth=true"],
    controllerManagerArguments: [
      "--controllers=*,bootstrapsigner,tokencleaner",
      ...(wanted.controllerManagerArguments ?? []),
    ],
  });
  await prepareCluster(world, wanted);
  return world;
}

/** One with kubeadm's add-ons, for a machine that is a container; it hands out Services' addresses of kubeadm's default range. */
export async function startKubeadmWorld(
  options: Pick<WorldOptions, "controllerManagerArguments"> = {},
): Promise<World> {
  return startJoinableWorld({
    token: TOKEN,
    // What this machine asks for; the rest is kubeadm's.
    kubelet: {
      failCgroupV1: false,
      cgroupDriver: "cgroupfs",
      enforceNodeAllocatable: [],
      failSwapOn: false,
      evictionHard: { "nodefs.available": "1%", "imagefs.available": "1%", "memory.available": "100Mi" },
    },
    cluster: {
      imageRepository: ADD_ON_REPOSITORY,
      dns: { imageRepository: ADD_ON_REPOSITORY, imageTag: "lab" },
    },
    documents: [
      {
        apiVersion: "kubeproxy.config.k8s.io/v1alpha1",
        kind: "KubeProxyConfiguration",
        mode: "nftables",
        conntrack: { maxPerCore: 0, min: 0, tcpEstablishedTimeout: "0s", tcpCloseWaitTimeout: "0s" },
      },
    ],
    addOns: ["kube-proxy", "coredns"],
    ...options,
  });
}

/** What follows "kubeadm join" or "holdfast join". */
export function joinArguments(world: World): string {
  return `${apiServerOf(world)} --token ${TOKEN} --discovery-token-ca-cert-hash ${caPin(world)}`;
}

/** Its host and port, as a join names it. */
export const apiServerOf = (world: World): string => world.apiServerUrl.replace("https://", "");

/** The hash of the cluster's CA, as kubeadm writes it. */
export function caPin(world: World): string {
  const key = new X509Certificate(readFileSync(world.pki.ca)).publicKey.export({ type: "spki", format: "der" });
  return `sha256:${createHash("sha256").update(key).digest("hex")}`;
}

async function prepareCluster(world: World, wanted: KubeadmCluster): Promise<void> {
  const host = world.network.cloudAddress;
  const documents = [
    {
      apiVersion: "kubeadm.k8s.io/v1beta4",
      kind: "InitConfiguration",
      bootstrapTokens: [{ token: wanted.token }],
      localAPIEndpoint: { advertiseAddress: host, bindPort: 6443 },
      nodeRegistration: { name: "control-plane", criSocket: "unix:///run/containerd/containerd.sock" },
    },
    {
      apiVersion: "kubeadm.k8s.io/v1beta4",
      kind: "ClusterConfiguration",
      kubernetesVersion: "v1.37.2",
      controlPlaneEndpoint: `${host}:6443`,
      networking: { serviceSubnet: "10.96.0.0/16", podSubnet: "10.244.0.0/16" },
      ...wanted.cluster,
    },
    { apiVersion: "kubelet.config.k8s.io/v1beta1", kind: "KubeletConfiguration", ...wanted.kubelet },
    ...(wanted.documents ?? []),
  ];
  const config = join(world.directory, "kubeadm.yaml");
  writeFileSync(config, documents.map((document) => JSON.stringify(document)).join("\n---\n"));
  const kubeconfig = join(world.directory, "admin.conf");
  writeFileSync(kubeconfig, withCaInside(readFileSync(world.adminKubeconfig, "utf8")));
  const addOns = (wanted.addOns ?? []).map((name) => ["addon", name]);
  for (const phase of [["upload-config", "all"], ["bootstrap-token"], ...addOns]) {
    const args = ["init", "phase", ...phase, `--config=${config}`, `--kubeconfig=${kubeconfig}`];
    const done = await runProcess(world.network.within(world.network.cloud, [programPath("kubeadm"), ...args]));
    if (done.exitCode !== 0) throw new Error(`Cannot run kubeadm ${args.join(" ")}: ${done.stderr}`);
  }
}

/** cluster-info carries the cluster of this kubeconfig, to machines that have none of its files. */
function withCaInside(kubeconfig: string): string {
  const config = JSON.parse(kubeconfig);
  const { cluster } = config.clusters[0];
  cluster["certificate-authority-data"] = readFileSync(cluster["certificate-authority"]).toString("base64");
  delete cluster["certificate-authority"];
  return JSON.stringify(config);
}
