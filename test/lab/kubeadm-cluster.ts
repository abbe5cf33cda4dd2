/**
 * What `kubeadm init` leaves in a cluster for those who join, its add-ons
 * included, told to the lab's API server by kubeadm's own phases.
 */
import { createHash, X509Certificate } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { programPath } from "./build.ts";
import { ADD_ON_REPOSITORY } from "./machine.ts";
import { runProcess } from "./processes.ts";
import { startWorld, type World } from "./world.ts";

const TOKEN = "abcdef.0123456789abcdef";

/** A control plane that admits by tokens, and hands out Services' addresses of kubeadm's default range. */
export async function startKubeadmWorld(signingDuration?: string): Promise<World> {
  const world = await startWorld({
    controllerManager: true,
    scheduler: true,
    apiServerArguments: ["--enable-bootstrap-token-auth=true"],
    controllerManagerArguments: [
      "--controllers=*,bootstrapsigner,tokencleaner",
      ...(signingDuration === undefined ? [] : [`--cluster-signing-duration=${signingDuration}`]),
    ],
  });
  await prepareCluster(world);
  return world;
}

/** What follows "kubeadm join" or "holdfast join". */
export function joinArguments(world: World): string {
  const key = new X509Certificate(readFileSync(world.pki.ca)).publicKey.export({ type: "spki", format: "der" });
  const pin = createHash("sha256").update(key).digest("hex");
  const server = world.apiServerUrl.replace("https://", "");
  return `${server} --token ${TOKEN} --discovery-token-ca-cert-hash sha256:${pin}`;
}

async function prepareCluster(world: World): Promise<void> {
  const host = world.network.cloudAddress;
  const documents = [
    {
      apiVersion: "kubeadm.k8s.io/v1beta4",
      kind: "InitConfiguration",
      bootstrapTokens: [{ token: TOKEN }],
      localAPIEndpoint: { advertiseAddress: host, bindPort: 6443 },
      nodeRegistration: { name: "control-plane", criSocket: "unix:///run/containerd/containerd.sock" },
    },
    {
      apiVersion: "kubeadm.k8s.io/v1beta4",
      kind: "ClusterConfiguration",
      kubernetesVersion: "v1.37.2",
      controlPlaneEndpoint: `${host}:6443`,
      imageRepository: ADD_ON_REPOSITORY,
      dns: { imageRepository: ADD_ON_REPOSITORY, imageTag: "lab" },
      networking: { serviceSubnet: "10.96.0.0/16", podSubnet: "10.244.0.0/16" },
    },
    {
      // What this machine asks for; the rest is kubeadm's.
      apiVersion: "kubelet.config.k8s.io/v1beta1",
      kind: "KubeletConfiguration",
      failCgroupV1: false,
      cgroupDriver: "cgroupfs",
      enforceNodeAllocatable: [],
      failSwapOn: false,
      evictionHard: { "nodefs.available": "1%", "imagefs.available": "1%", "memory.available": "100Mi" },
    },
    {
      apiVersion: "kubeproxy.config.k8s.io/v1alpha1",
      kind: "KubeProxyConfiguration",
      mode: "nftables",
      conntrack: { maxPerCore: 0, min: 0, tcpEstablishedTimeout: "0s", tcpCloseWaitTimeout: "0s" },
    },
  ];
  const config = join(world.directory, "kubeadm.yaml");
  writeFileSync(config, documents.map((document) => JSON.stringify(document)).join("\n---\n"));
  const kubeconfig = join(world.directory, "admin.conf");
  writeFileSync(kubeconfig, withCaInside(readFileSync(world.adminKubeconfig, "utf8")));
  for (const phase of [["upload-config", "all"], ["bootstrap-token"], ["addon", "kube-proxy"], ["addon", "coredns"]]) {
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
