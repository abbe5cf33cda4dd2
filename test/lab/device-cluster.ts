/**
 * A cluster for devices: what `kubeadm init` leaves for those who join, and the
 * file by which a device joins it.
 */
import { createHash, X509Certificate } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { programPath } from "./build.ts";
import { runProcess } from "./processes.ts";
import { startWorld, type World } from "./world.ts";

/** The secret half of the token: what must not be left on a disk. */
export const TOKEN_SECRET = "0123456789fedcba";
const TOKEN = `abcdef.${TOKEN_SECRET}`;

/** A control plane that admits by token. */
export async function startDeviceWorld(): Promise<World> {
  const world = await startWorld({
    controllerManager: true,
    scheduler: true,
    apiServerArguments: ["--enable-bootstrap-token-auth=true"],
    controllerManagerArguments: ["--controllers=*,bootstrapsigner,tokencleaner"],
  });
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
      networking: { serviceSubnet: "10.96.0.0/16", podSubnet: "10.244.0.0/16" },
    },
    {
      apiVersion: "kubelet.config.k8s.io/v1beta1",
      kind: "KubeletConfiguration",
      cgroupDriver: "systemd",
      evictionHard: { "nodefs.available": "1%", "imagefs.available": "1%", "memory.available": "50Mi" },
    },
  ];
  const config = join(world.directory, "kubeadm.yaml");
  writeFileSync(config, documents.map((document) => JSON.stringify(document)).join("\n---\n"));
  const kubeconfig = join(world.directory, "admin.conf");
  writeFileSync(kubeconfig, withCaInside(readFileSync(world.adminKubeconfig, "utf8")));
  for (const phase of [["upload-config", "all"], ["bootstrap-token"]]) {
    const args = ["init", "phase", ...phase, `--config=${config}`, `--kubeconfig=${kubeconfig}`];
    const done = await runProcess(world.network.within(world.network.cloud, [programPath("kubeadm"), ...args]));
    if (done.exitCode !== 0) throw new Error(`Cannot run kubeadm ${args.join(" ")}: ${done.stderr}`);
  }
  return world;
}

/** The text of holdfast-join.yaml for this cluster. */
export function joinFile(world: World, nodeName: string): string {
  const key = new X509Certificate(readFileSync(world.pki.ca)).publicKey.export({ type: "spki", format: "der" });
  return [
    `apiServer: ${world.apiServerUrl.replace("https://", "")}`,
    `token: ${TOKEN}`,
    `caCertHashes: ["sha256:${createHash("sha256").update(key).digest("hex")}"]`,
    `nodeName: ${nodeName}`,
    "labels: {site: north}",
    "pool: north",
    "",
  ].join("\n");
}

function withCaInside(kubeconfig: string): string {
  const config = JSON.parse(kubeconfig);
  const { cluster } = config.clusters[0];
  cluster["certificate-authority-data"] = readFileSync(cluster["certificate-authority"]).toString("base64");
  delete cluster["certificate-authority"];
  return JSON.stringify(config);
}
