/**
 * A node shown at a place: a real API server with its own preference of
 * addresses, a real kubelet behind Holdfast, and a TCP pipe where the place is.
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { writeFileAtomically } from "../../src/base/atomic-file.ts";
import { PLACE_ANNOTATION } from "../../src/kube/placed-node.ts";
import { LabNode } from "./node.ts";
import { type LabProcess, until } from "./processes.ts";
import { isLong } from "./node-world.ts";
import { startTalker } from "./talker.ts";
import { titled, whyWithoutNode } from "./requirements.ts";
import { type Holdfast, NODE_NAME, startWorld, type World } from "./world.ts";

const NAMESPACE = "shop";
const PORT = 31250;
/** Orders of an API server, and the type by which this node, that has an InternalIP and a Hostname, is dialled. */
const PREFERENCES = [
  ["InternalIP,ExternalIP,Hostname", "InternalIP"],
  ["ExternalIP,InternalIP", "InternalIP"],
  ["Hostname", "Hostname"],
  ["InternalDNS,ExternalDNS,Hostname", "Hostname"],
  ["ExternalIP,ExternalDNS,InternalDNS", undefined],
  ["Hostname,InternalDNS,InternalIP,ExternalDNS,ExternalIP", "Hostname"],
] as const;

describe.skipIf(whyWithoutNode !== undefined)(titled("a node shown at a place", whyWithoutNode), () => {
  let world: World;
  let node: LabNode;
  let holdfast: Holdfast;
  let pipe: LabProcess;
  let kubeconfig: string;

  beforeAll(async () => {
    // As a stock API server without kubeadm: Hostname first, which nobody resolves here.
    const preference = "Hostname,InternalDNS,InternalIP,ExternalDNS,ExternalIP";
    world = await startWorld({
      apiServerArguments: [`--kubelet-preferred-address-types=${preference}`, "--kubelet-certificate-authority="],
    });
    await world.createNamespace(NAMESPACE);
    pipe = await startPipe(world);
    const { cloudAddress } = world.network;
    holdfast = await world.startHoldfast({ args: ["--config", configured(world, cloudAddress)] });
    kubeconfig = world.proxyKubeconfig(holdfast.stateDir, world.certificateOf("node"));
    node = await LabNode.start(world, { kubeconfig });
    await startTalker(world, NAMESPACE);
  }, 240_000);
  afterAll(async () => {
    await node?.[Symbol.asyncDispose]();
    await world?.[Symbol.asyncDispose]();
  });

  const inCloud = async () => JSON.parse(await world.inCloud(["get", "node", NODE_NAME, "-o", "json"]));
  const atEdge = async () =>
    JSON.parse((await world.kubectl(["get", "node", NODE_NAME, "-o", "json"], { kubeconfig })).stdout);
  const connections = () => pipe.log.split("connection ").length - 1;
  const trueAddresses = () => [
    { type: "InternalIP", address: world.network.edgeAddress },
    { type: "Hostname", address: NODE_NAME },
  ];

  test("the API server shows the place, everybody at the edge what kubelet wrote", async () => {
    const { cloudAddress } = world.network;
    const [cloud, edge] = [await inCloud(), await atEdge()];
    expect(cloud.status.addresses).toEqual([
      { type: "Hostname", address: cloudAddress },
      trueAddresses()[1],
      { type: "InternalIP", address: cloudAddress },
      trueAddresses()[0],
    ]);
    expect(cloud.status.daemonEndpoints.kubeletEndpoint.Port).toBe(PORT);
    expect(edge.status.addresses).toEqual(trueAddresses());
    const { [PLACE_ANNOTATION]: annotation, ...annotations } = cloud.metadata.annotations;
    expect(JSON.parse(annotation)).toMatchObject({ addresses: trueAddresses(), port: 10250 });
    expect(edge).toEqual({
      ...cloud,
      metadata: { ...cloud.metadata, annotations },
      status: {
        ...cloud.status,
        addresses: trueAddresses(),
        daemonEndpoints: { kubeletEndpoint: { Port: 10250 } },
      },
    });
    const wide = await world.kubectl(["get", "node", NODE_NAME, "-o", "wide"], { kubeconfig });
    expect(wide.stdout).toContain(world.network.edgeAddress);
    expect(wide.stdout).not.toContain(cloudAddress);
    expect(await world.inCloud(["get", "node", NODE_NAME, "-o", "wide"])).toContain(cloudAddress);
    const pod = JSON.parse(await world.inCloud(["get", "pod", "talker", "-n", NAMESPACE, "-o", "json"]));
    expect([pod.status.hostIP, pod.status.podIP]).toEqual([world.network.edgeAddress, world.network.edgeAddress]);
  });

  test("logs, exec, port-forward and the stats behind top arrive by the place", async () => {
    const before = connections();
    expect(await world.inCloud(["logs", "talker", "-n", NAMESPACE])).toContain("line 0");
    expect(await world.inCloud(["exec", "talker", "-n", NAMESPACE, "--", "echo", "spoken"])).toBe("spoken\n");
    const stats = JSON.parse(await world.inCloud(["get", "--raw", `/api/v1/nodes/${NODE_NAME}/proxy/stats/summary`]));
    expect(stats.node.nodeName).toBe(NODE_NAME);
    const forward = world.startKubectlInCloud(["port-forward", "talker", "-n", NAMESPACE, ":10248"]);
    const said = forward.hear();
    const port = await until("port-forward listens", () => /127\.0\.0\.1:(\d+)/.exec(said())?.[1]);
    // Kubelet's own health port, in the network that the pod shares.
    expect(await world.fetchInCloud(`http://127.0.0.1:${port}/healthz`)).toBe("ok");
    await forward.stop();
    expect(connections() - before).toBeGreaterThanOrEqual(3);
  });

  test.skipIf(!isLong).each(PREFERENCES)(
    "an API server that prefers %s",
    async (preference, dialled) => {
      await world.restartApiServer([`--kubelet-preferred-address-types=${preference}`]);
      const before = connections();
      const logs = () => world.inCloud(["logs", "talker", "-n", NAMESPACE, "--tail=1"]);
      if (dialled === undefined) await expect(logs()).rejects.toThrow("no preferred addresses found");
      else expect(await until("kubelet is reached", logs)).toMatch(/^line \d+\n$/);
      expect(connections() > before).toBe(dialled !== undefined);
      const { addresses } = (await inCloud()).status as { addresses: { type: string; address: string }[] };
      const first = preference.split(",").map((type) => addresses.find((one) => one.type === type));
      expect(first.find((one) => one !== undefined)?.type).toBe(dialled!);
    },
    90_000,
  );

  test("kubelet restarted, with the API server's node as it is, writes nothing back", async () => {
    await node.stopKubelet();
    node.startKubelet(kubeconfig);
    const since = Date.now();
    const lease = ["get", "lease", NODE_NAME, "-n", "kube-node-lease", "-o", "jsonpath={.spec.renewTime}"];
    const isAtWork = async () => Date.parse(await world.inCloud(lease)) > since;
    await until("kubelet is at work again", isAtWork, 60_000);
    expect((await inCloud()).status.addresses[0].address).toBe(world.network.cloudAddress);
    expect((await atEdge()).status.addresses).toEqual(trueAddresses());
  });

  test("without the place the true addresses are shown again, by one write", async () => {
    await holdfast.stop();
    holdfast = await world.startHoldfast({ stateDir: holdfast.stateDir });
    const shown = await until("the true addresses are shown", async () => {
      const one = await inCloud();
      return one.status.addresses.length === 2 ? one : undefined;
    });
    expect(shown.status.addresses).toEqual(trueAddresses());
    expect(shown.status.daemonEndpoints.kubeletEndpoint.Port).toBe(10250);
    expect(shown.metadata.annotations[PLACE_ANNOTATION]).toBeUndefined();
  });

  test("a kubelet that goes on without Holdfast writes its own addresses itself", async () => {
    await holdfast.stop();
    const { cloudAddress } = world.network;
    holdfast = await world.startHoldfast({
      stateDir: holdfast.stateDir,
      args: ["--config", configured(world, cloudAddress)],
    });
    await until("the place is shown", async () => (await inCloud()).status.addresses.length === 4);
    expect((await inCloud()).status.addresses[0].address).toBe(cloudAddress);
    await holdfast.stop();
    await node.stopKubelet();
    node.startKubelet(world.nodeKubeconfig);
    const shown = await until(
      "kubelet has written its addresses",
      async () => {
        const one = await inCloud();
        return one.status.addresses.length === 2 ? one : undefined;
      },
      60_000,
    );
    expect(shown.status.addresses).toEqual(trueAddresses());
    expect(shown.status.daemonEndpoints.kubeletEndpoint.Port).toBe(10250);
  });
});

describe.skipIf(whyWithoutNode !== undefined || !isLong)(titled("a node of two families", whyWithoutNode), () => {
  test("is shown at its place in front of both its addresses, and nobody writes them back", async () => {
    await using world = await startWorld({ apiServerArguments: ["--kubelet-certificate-authority="] });
    await world.createNamespace(NAMESPACE);
    await startPipe(world);
    const { cloudAddress, edge, edgeAddress } = world.network;
    const six = "fd00:200::2";
    Bun.spawnSync(["ip", "-n", edge, "addr", "add", `${six}/64`, "dev", "edge0", "nodad"]);
    await using holdfast = await world.startHoldfast({ args: ["--config", configured(world, cloudAddress)] });
    const kubeconfig = world.proxyKubeconfig(holdfast.stateDir, world.certificateOf("node"));
    await using _node = await LabNode.start(world, { kubeconfig, moreAddresses: [six] });
    await startTalker(world, NAMESPACE);
    const shown = async () => {
      const node = JSON.parse(await world.inCloud(["get", "node", NODE_NAME, "-o", "json"]));
      const addresses = node.status.addresses as readonly { type: string; address: string }[];
      const byType = (type: string) => addresses.filter((one) => one.type === type).map(({ address }) => address);
      return { InternalIP: byType("InternalIP"), Hostname: byType("Hostname") };
    };
    // A strategic merge groups them by type; what counts is the order within one.
    const whole = { InternalIP: [cloudAddress, edgeAddress, six], Hostname: [cloudAddress, NODE_NAME] };
    expect(await shown()).toEqual(whole);
    expect(await world.inCloud(["logs", "talker", "-n", NAMESPACE])).toContain("line 0");
    const pod = JSON.parse(await world.inCloud(["get", "pod", "talker", "-n", NAMESPACE, "-o", "json"]));
    expect(pod.status.hostIPs).toEqual([{ ip: edgeAddress }, { ip: six }]);
    // Three of kubelet's rounds.
    const mark = world.audit.mark();
    await Bun.sleep(30_000);
    expect(await shown()).toEqual(whole);
    expect(world.audit.since(mark).filter(({ verb, uri }) => verb === "patch" && uri.includes("/nodes/"))).toEqual([]);
  }, 180_000);
});

describe.skipIf(whyWithoutNode !== undefined)(titled("a place where kubelets are verified", whyWithoutNode), () => {
  test("is believed by the certificate that Holdfast asks for, which kubelet reads without a restart", async () => {
    // The lab's own preference is kubeadm's, and its API server verifies.
    await using world = await startWorld({ controllerManager: true });
    await world.createNamespace(NAMESPACE);
    await startPipe(world);
    const serving = "certificates: {kubeletServing: true}\n";
    await using holdfast = await world.startHoldfast({
      args: ["--config", configured(world, world.network.cloudAddress, serving)],
    });
    const kubeconfig = world.proxyKubeconfig(holdfast.stateDir, world.certificateOf("node"));
    await using _node = await LabNode.start(world, { kubeconfig });
    await startTalker(world, NAMESPACE);
    const logs = () => world.inCloud(["logs", "talker", "-n", NAMESPACE]);
    await expect(logs()).rejects.toThrow("certificate is valid for");

    const requests = ["get", "csr", "--field-selector=spec.signerName=kubernetes.io/kubelet-serving", "-o", "name"];
    const request = await until("Holdfast has asked", async () => (await world.inCloud(requests)).trim());
    expect(request).not.toContain("\n");
    await world.inCloud(["certificate", "approve", request.replace(/^[^/]*\//, "")]);
    const pem = await until("the certificate is there", () =>
      readFileSync(join(holdfast.stateDir, "pki/kubelet-serving.pem"), "utf8"),
    );
    // Both of kubelet's files become the one that Holdfast keeps.
    for (const path of [world.pki.key("node-serving"), world.pki.certificate("node-serving")])
      writeFileAtomically(path, pem, 0o600);
    expect(await until("the API server believes kubelet at its place", logs, 90_000)).toContain("line 0");
  }, 240_000);
});

/** The place itself: to kubelet's own port. */
async function startPipe(world: World): Promise<LabProcess> {
  const { cloudAddress, edgeAddress } = world.network;
  const script = new URL("pipe.ts", import.meta.url).pathname;
  const command = [process.execPath, script, cloudAddress, String(PORT), edgeAddress, "10250"];
  const pipe = world.startCloudProgram("pipe", command);
  await until("the pipe stands", () => pipe.log.includes("ready"));
  return pipe;
}

function configured(world: World, host: string, more = ""): string {
  const path = join(world.directory, "place.yaml");
  const head = "apiVersion: holdfast.dev/v1alpha1\nkind: HoldfastConfiguration\n";
  writeFileSync(path, `${head}place: {hosts: [${host}], port: ${PORT}}\n${more}`);
  return path;
}
