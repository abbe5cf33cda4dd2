/**
 * The README's own lines on a node that kubeadm joined: they are read from
 * README.md and run as they stand there, so that the document cannot drift from
 * what works. Steps of one story, in order.
 *
 * The API server is the lab's; `kubeadm init phase` tells it what a cluster made
 * by kubeadm holds. From `kubeadm join` on the node is as kubeadm makes it.
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { createHash, X509Certificate } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { programPath } from "./build.ts";
import { Machine, type MachineContainer } from "./machine.ts";
import { measured, seconds } from "./node-world.ts";
import { runProcess, until } from "./processes.ts";
import { titled, whyWithoutMachine } from "./requirements.ts";
import { CONTAINERS, NAMESPACE, staticPod, workload } from "./workload.ts";
import { NODE_NAME, startWorld, type World } from "./world.ts";
import { WrongClock } from "./wrong-clock.ts";

const TOKEN = "abcdef.0123456789abcdef";
const CURRENT = "/var/lib/kubelet/pki/kubelet-client-current.pem";
/** kubelet's sync is no slower; so long is watched for a restart that must not come. */
const QUIET_MS = 10_000;

describe.skipIf(whyWithoutMachine !== undefined)(titled("a node that kubeadm joined", whyWithoutMachine), () => {
  let world: World;
  let machine: Machine;
  let before: readonly MachineContainer[] = [];
  let after: readonly MachineContainer[] = [];
  const [toReboot, fromReboot] = recipe();
  beforeAll(async () => {
    world = await startWorld({
      controllerManager: true,
      scheduler: true,
      apiServerArguments: ["--enable-bootstrap-token-auth=true"],
      controllerManagerArguments: ["--controllers=*,bootstrapsigner,tokencleaner"],
    });
    machine = await Machine.start(world);
    await prepareCluster(world, machine.cgroup);
  }, 240_000);
  afterAll(async () => {
    await machine?.[Symbol.asyncDispose]();
    await world?.[Symbol.asyncDispose]();
  });

  test("kubeadm joins it, and pods run", async () => {
    const pin = createHash("sha256")
      .update(new X509Certificate(readFileSync(world.pki.ca)).publicKey.export({ type: "spki", format: "der" }))
      .digest("hex");
    const server = world.apiServerUrl.replace("https://", "");
    await machine.mustRun(
      `kubeadm join ${server} --token ${TOKEN} --discovery-token-ca-cert-hash sha256:${pin} --ignore-preflight-errors=all`,
      180_000,
    );
    await world.createNamespace(NAMESPACE);
    await world.apply(...workload("/opt").filter((object) => (object as { kind: string }).kind !== "Job"));
    await machine.mustRun(`printf %s '${JSON.stringify(staticPod())}' > /etc/kubernetes/manifests/manifest.json`);
    await readyInCloud(world);
    before = await machine.running();
    expect(before).toHaveLength(CONTAINERS);
  });

  test("the README's lines bring as many containers back after a reboot without the cluster", async () => {
    const script = machine.startScript(toReboot.join("\n"));
    await until(
      "the machine is asked to reboot",
      () => {
        if (!script.isRunning && !machine.isRebootAsked) throw new Error(`the lines ended: ${script.log}`);
        return machine.isRebootAsked;
      },
      240_000,
    );
    expect(script.log.trim().split("\n").at(-1)).toBe(`${CONTAINERS}`);
    world.cut();
    const bootedMs = Date.now();
    await machine.powerCycle();

    const last = fromReboot.join("\n");
    await until(
      "as many containers run",
      async () => (await machine.mustRun(last)).trim() === `${CONTAINERS}`,
      120_000,
    );
    after = await machine.running();
    const lastMs = Math.max(...after.map(({ createdAtMs }) => createdAtMs));
    measured("kubeadm node, reboot while cut: power to the last container", seconds(lastMs - bootedMs));
    expect(after.map(({ pod }) => pod)).toEqual(before.map(({ pod }) => pod));
    expect(before.map(({ id }) => id)).not.toContainAnyValues(after.map(({ id }) => id));
  }, 480_000);

  test("the link returns: no container is touched, and the node is ready", async () => {
    const healedMs = Date.now();
    world.heal();
    measured("kubeadm node, link back until kubelet's lease is renewed", seconds(await heard(world, healedMs)));
    await readyInCloud(world);
    await Bun.sleep(QUIET_MS);
    expect((await machine.running()).map(({ id }) => id)).toEqual(after.map(({ id }) => id));
  });

  test("kubelet renews its certificate through Holdfast, and Holdfast goes up with the new one", async () => {
    await machine.mustRun(`cat > /var/lib/kubelet/pki/kubelet-client-old.pem << END\n${await almostOver(world)}END
      ln -sf kubelet-client-old.pem ${CURRENT}`);
    await until("Holdfast uses it", async () => (await daysLeft(machine)) < 3);
    await machine.mustRun("systemctl restart kubelet");
    await until("kubelet has another one", async () =>
      /kubelet-client-\d/.test(await machine.mustRun(`readlink ${CURRENT}`)),
    );
    await until("Holdfast uses that", async () => (await daysLeft(machine)) > 300);
    await heard(world, Date.now());
    expect((await machine.running()).map(({ id }) => id)).toEqual(after.map(({ id }) => id));
  });

  test("the way back: kubelet goes straight to the API server again, without Holdfast", async () => {
    await machine.mustRun(
      "systemctl stop holdfast; cd /etc/kubernetes && cp kubelet-direct.conf kubelet.conf && systemctl restart kubelet",
    );
    await heard(world, Date.now());
    await readyInCloud(world);
    expect((await machine.running()).map(({ id }) => id)).toEqual(after.map(({ id }) => id));
  });
});

/** The README's lines up to the reboot, and those after it. */
function recipe(): readonly [readonly string[], readonly string[]] {
  const readme = readFileSync(join(import.meta.dir, "../../README.md"), "utf8");
  const [, section = ""] = readme.split("\n### Reboot a node without its cluster\n");
  const [, block = ""] = /\n\n((?: {4}.*\n)+)/.exec(section) ?? [];
  const lines = block.split("\n").map((line) => line.slice(4));
  const at = lines.findIndex((line) => /^reboot\b/.test(line));
  if (at < 0) throw new Error("Cannot find the lines of a reboot in README.md");
  return [lines.slice(0, at + 1), lines.slice(at + 1)];
}

/** What `kubeadm init` leaves in a cluster for those who join. */
async function prepareCluster(world: World, cgroup: string): Promise<void> {
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
      // What this machine asks for; the rest is kubeadm's.
      apiVersion: "kubelet.config.k8s.io/v1beta1",
      kind: "KubeletConfiguration",
      failCgroupV1: false,
      cgroupDriver: "cgroupfs",
      cgroupRoot: `/${cgroup}`,
      enforceNodeAllocatable: [],
      failSwapOn: false,
      evictionHard: { "nodefs.available": "1%", "imagefs.available": "1%", "memory.available": "100Mi" },
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
}

/** cluster-info carries the cluster of this kubeconfig, to machines that have none of its files. */
function withCaInside(kubeconfig: string): string {
  const config = JSON.parse(kubeconfig);
  const { cluster } = config.clusters[0];
  cluster["certificate-authority-data"] = readFileSync(cluster["certificate-authority"]).toString("base64");
  delete cluster["certificate-authority"];
  return JSON.stringify(config);
}

/** Waits until node and pods are ready in the cloud's eyes. */
async function readyInCloud(world: World): Promise<void> {
  const ready = '{.status.conditions[?(@.type=="Ready")].status}';
  await until(
    "the node and its pods are ready in the cloud",
    async () => {
      const node = await world.inCloud(["get", "node", NODE_NAME, "-o", `jsonpath=${ready}`]);
      const pods = await world.inCloud([
        "get",
        "pods",
        "-n",
        NAMESPACE,
        "-o",
        `jsonpath={range .items[*]}${ready} {end}`,
      ]);
      return (
        node === "True" &&
        pods
          .trim()
          .split(" ")
          .filter((isReady) => isReady === "True").length === CONTAINERS
      );
    },
    120_000,
  );
}

/** Waits until kubelet's lease is renewed in the cloud after this moment. @returns how long that took, in milliseconds. */
async function heard(world: World, sinceMs: number): Promise<number> {
  const lease = ["get", "lease", NODE_NAME, "-n", "kube-node-lease", "-o", "jsonpath={.spec.renewTime}"];
  await until("kubelet's lease is renewed", async () => Date.parse(await world.inCloud(lease)) > sinceMs, 60_000);
  return Date.now() - sinceMs;
}

/** A client certificate of the node, key beside it, that has a day of its year left: kubelet renews it at once. */
async function almostOver(world: World): Promise<string> {
  const clock = new WrongClock(world.directory);
  clock.set(Date.now() - 364 * 86_400_000);
  const file = (name: string) => join(world.directory, `old.${name}`);
  const mint = async (...args: string[]) => {
    const done = await runProcess(["openssl", ...args], { env: clock.env });
    if (done.exitCode !== 0) throw new Error(`Cannot run openssl ${args[0]}: ${done.stderr}`);
  };
  await mint("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", file("key"));
  await mint(
    "req",
    "-new",
    "-key",
    file("key"),
    "-subj",
    `/O=system:nodes/CN=system:node:${NODE_NAME}`,
    "-out",
    file("csr"),
  );
  writeFileSync(file("ext"), "keyUsage=critical,digitalSignature\nextendedKeyUsage=clientAuth\n");
  const signer = ["-CA", world.pki.ca, "-CAkey", world.pki.key("ca"), "-CAcreateserial"];
  await mint(
    "x509",
    "-req",
    "-in",
    file("csr"),
    ...signer,
    "-days",
    "365",
    "-extfile",
    file("ext"),
    "-out",
    file("crt"),
  );
  return readFileSync(file("crt"), "utf8") + readFileSync(file("key"), "utf8");
}

/** Of the certificate that Holdfast goes up with. */
async function daysLeft(machine: Machine): Promise<number> {
  // Its exit code tells of a certificate that ends soon.
  const { certificates, nowMs } = JSON.parse((await machine.run("holdfast status -o json")).stdout) as {
    readonly certificates: readonly { name: string; notAfterMs: number }[];
    readonly nowMs: number;
  };
  const upstream = certificates.find(({ name }) => name === "upstream");
  return ((upstream?.notAfterMs ?? 0) - nowMs) / 86_400_000;
}
