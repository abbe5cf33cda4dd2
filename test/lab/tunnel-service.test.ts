/**
 * The tunnel in a cluster as people have one: an API server that verifies
 * kubelets, a ClusterIP for each node, gateways as pods, a machine behind NAT
 * that kubeadm joined and `holdfast adopt` led. What counts on port 10250 and
 * on a certificate follows: metrics-server, `kubectl top`, an HPA.
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { X509Certificate } from "node:crypto";
import { IMAGE } from "./node-image.ts";
import { measured, seconds } from "./node-world.ts";
import { until } from "./processes.ts";
import { titled, whyWithoutMachine } from "./requirements.ts";
import { ServiceWorld } from "./service-world.ts";
import { GATEWAY_NAMESPACE, readmeLines, SHOP } from "./tunnel-world.ts";
import { NODE_NAME } from "./world.ts";

const why = whyWithoutMachine ?? (Bun.which("dpkg-query") === null ? "dpkg-query is not installed" : undefined);
/** Some hundredths of a core; its request is one. */
const BUSY = "while true; do i=0; while [ $i -lt 2000 ]; do i=$((i+1)); done; sleep 0.05; done";

describe.skipIf(why !== undefined)(titled("the tunnel in a cluster", why), () => {
  let cluster: ServiceWorld;
  beforeAll(async () => {
    cluster = await ServiceWorld.start();
    await cluster.world.createNamespace(SHOP);
    await cluster.world.apply(...shop());
  }, 290_000);
  afterAll(async () => {
    if (process.env["HOLDFAST_LAB_KEEP"] !== undefined) {
      for (const args of [
        ["get", "csr", "-o", "yaml"],
        ["get", "events", "-A", "-o", "custom-columns=R:.reason,M:.message"],
        ["get", "services", "-n", GATEWAY_NAMESPACE, "-o", "yaml"],
        ["logs", "deployment/holdfast-guard", "-n", GATEWAY_NAMESPACE],
        ["logs", "deployment/metrics-server", "-n", "kube-system"],
        ["get", "pods", "-A", "-o", "wide"],
        ["get", "apiservices", "v1beta1.metrics.k8s.io", "-o", "yaml"],
        ["describe", "hpa", "-n", SHOP],
      ]) {
        const { stdout, stderr } = await cluster.kubectl(args);
        console.log(`==== ${args.join(" ")}\n${stdout}${stderr}`);
      }
      for (const unit of ["kubelet", "holdfast", "holdfast-bypass"]) console.log(await cluster?.machine.journal(unit));
    }
    await cluster?.[Symbol.asyncDispose]();
  }, 60_000);

  const logs = ["logs", "deployment/busy", "-n", SHOP, "--tail=1"];
  const exec = (...command: string[]) => ["exec", "deployment/busy", "-n", SHOP, "--", ...command];

  test("the node stands at a ClusterIP of its own and keeps kubelet's port", async () => {
    const [at = "", edge, port] = (await cluster.shownAt()).split(" ");
    const services = ["get", "services", "-n", GATEWAY_NAMESPACE, "-o", "jsonpath={.items[*].spec.clusterIP}"];
    expect((await cluster.world.inCloud(services)).split(" ")).toContain(at);
    expect([edge, port]).toEqual([cluster.world.network.edgeAddress, "10250"]);
  });

  test("the guard approves the place, kubelet is led to the certificate, and the API server that verifies believes it", async () => {
    const [at = ""] = (await cluster.shownAt()).split(" ");
    measured(
      "kubelet's serving certificate: asked for, approved by the guard, kubelet led to it",
      seconds(await cluster.led()),
    );
    const pem = readFileSync(join(cluster.machine.disk, "var/lib/holdfast/pki/kubelet-serving.pem"), "utf8");
    const leaf = new X509Certificate(pem);
    expect([leaf.checkIP(at), leaf.checkIP(cluster.world.network.edgeAddress)]).not.toContain(undefined);
    const approvals = ["get", "csr", "--field-selector=spec.signerName=kubernetes.io/kubelet-serving", "-o"];
    const reason = "jsonpath={.items[*].status.conditions[*].reason}";
    expect(await cluster.world.inCloud([...approvals, reason])).toBe("HoldfastApproved");
    const { stdout, tookMs } = await cluster.eventually("kubectl logs arrives by the place", logs, 90_000);
    expect(stdout).toBe("begun\n");
    measured("until kubectl logs arrives by the place after that", seconds(tookMs));
  }, 180_000);

  test("the README's last line, and what check and status say on the node", async () => {
    const line = readmeLines()[4]!.replace("-it POD", `deployment/busy -n ${SHOP}`).split(" ").slice(1);
    expect((await cluster.kubectl([...line, "-c", "echo inside"])).stdout).toBe("inside\n");
    const check = (await cluster.machine.run("holdfast check tunnel")).stdout;
    for (const words of ["its certificate is believed", "link: open to", "dials 10.96.", "serves by the certificate"])
      expect(check).toContain(words);
    expect((await cluster.machine.run("holdfast status")).stdout).toMatch(
      /Tunnel: open .* dials 10\.96\.[0-9.]+:10250/,
    );
  }, 60_000);

  test("kubectl debug: a container in the node's pod, and a pod on the node", async () => {
    // Whoever attaches to what has ended sees nothing, with or without a tunnel.
    const said = (command: string) => ["sh", "-c", `sleep 3; ${command}`];
    const image = [`--image=${IMAGE}`, "--image-pull-policy=Never"];
    const pod = (await cluster.world.inCloud(["get", "pods", "-n", SHOP, "-l", "app=busy", "-o", "name"])).split(
      "\n",
    )[0]!;
    const inside = [
      "debug",
      pod,
      "-n",
      SHOP,
      ...image,
      "-c",
      "look",
      "--attach",
      "-q",
      "--",
      ...said("cat /proc/self/comm"),
    ];
    expect(await cluster.kubectl(inside, 60_000)).toMatchObject({ exitCode: 0, stdout: "cat\n", stderr: "" });
    const onNode = [
      "debug",
      `node/${NODE_NAME}`,
      "-n",
      SHOP,
      ...image,
      "--attach",
      "-q",
      "--",
      ...said("cat /host/etc/hostname"),
    ];
    expect(await cluster.kubectl(onNode, 60_000)).toMatchObject({ exitCode: 0, stdout: `${NODE_NAME}\n`, stderr: "" });
  }, 120_000);

  test("metrics-server asks kubelet by the tunnel: kubectl top, and an HPA that scales", async () => {
    const node = await cluster.eventually("kubectl top knows the node", ["top", "node", NODE_NAME], 120_000);
    expect(node.stdout).toMatch(new RegExp(`^${NODE_NAME} +\\d+m`, "m"));
    const pods = await cluster.eventually("kubectl top knows its pods", ["top", "pod", "-n", SHOP], 60_000);
    expect(pods.stdout).toMatch(/^busy-\S+ +\d+m/m);
    const startedMs = performance.now();
    const replicas = ["get", "deployment", "busy", "-n", SHOP, "-o", "jsonpath={.status.readyReplicas}"];
    await until("the HPA has scaled it", async () => Number(await cluster.world.inCloud(replicas)) > 1, 120_000);
    measured(
      "kubectl top's first word of the node; the HPA's next replica ready after that",
      `${seconds(node.tookMs)}, ${seconds(performance.now() - startedMs)}`,
    );
  }, 300_000);

  test("the pod that holds the tunnel is deleted: the place stays, and the next exec goes through the other", async () => {
    const [before, place] = [await cluster.holder(), await cluster.shownAt()];
    const startedMs = performance.now();
    await cluster.world.inCloud(["delete", "pod", before, "-n", GATEWAY_NAMESPACE, "--wait=false", "--grace-period=1"]);
    await until("the other one holds it", async () => ![before, ""].includes(await cluster.holder()), 20_000);
    const heldMs = performance.now() - startedMs;
    await cluster.eventually("kubectl exec works", exec("true"), 20_000);
    measured(
      "gateway's pod deleted: held by the other, and kubectl exec works",
      `${seconds(heldMs)}, ${seconds(performance.now() - startedMs)}`,
    );
    expect(await cluster.shownAt()).toBe(place);
  }, 60_000);

  test("revert: the true address again, and kubelet serves as before", async () => {
    await cluster.machine.mustRun("holdfast revert");
    const { edgeAddress } = cluster.world.network;
    await until(
      "the node is shown where it is",
      async () => (await cluster.shownAt()) === `${edgeAddress} 10250`,
      30_000,
    );
    const drop = await cluster.machine.run("ls /etc/systemd/system/kubelet.service.d");
    expect(drop.stdout).not.toContain("zz-holdfast");
  }, 60_000);
});

/** A Deployment on the node that is always a little busy, and what scales it. */
function shop(): object[] {
  const labels = { app: "busy" };
  const container = {
    name: "app",
    image: IMAGE,
    imagePullPolicy: "Never",
    command: ["sh", "-c", `echo begun; ${BUSY}`],
    resources: { requests: { cpu: "10m" } },
  };
  const metric = {
    type: "Resource",
    resource: { name: "cpu", target: { type: "Utilization", averageUtilization: 50 } },
  };
  return [
    {
      apiVersion: "apps/v1",
      kind: "Deployment",
      metadata: { name: "busy", namespace: SHOP },
      spec: {
        selector: { matchLabels: labels },
        template: {
          metadata: { labels },
          spec: { nodeName: NODE_NAME, terminationGracePeriodSeconds: 0, containers: [container] },
        },
      },
    },
    {
      apiVersion: "autoscaling/v2",
      kind: "HorizontalPodAutoscaler",
      metadata: { name: "busy", namespace: SHOP },
      spec: {
        scaleTargetRef: { apiVersion: "apps/v1", kind: "Deployment", name: "busy" },
        minReplicas: 1,
        maxReplicas: 2,
        metrics: [metric],
      },
    },
  ];
}
