/**
 * A node that kubeadm joined, in a machine with systemd as its first process,
 * from the README's first screen to the last: its lines are read from README.md
 * and run as they stand there. Steps of one story, in order.
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { joinArguments, startKubeadmWorld } from "./kubeadm-cluster.ts";
import { Machine, type MachineContainer } from "./machine.ts";
import { ADD_ONS, CURRENT_PAIR, heard, putEndingPair, readyInCloud } from "./machine-story.ts";
import { measured, seconds } from "./node-world.ts";
import { until } from "./processes.ts";
import { titled, whyWithoutMachine } from "./requirements.ts";
import { CONTAINERS, NAMESPACE, staticPod, workload } from "./workload.ts";
import { NODE_NAME, type World } from "./world.ts";

const ALL = CONTAINERS + ADD_ONS;
/** What is kubeadm's and kubelet's: nobody else may write there. */
const KUBEADMS = ["etc/kubernetes", "var/lib/kubelet/pki"];
const DROP_IN = "etc/systemd/system/kubelet.service.d/zz-holdfast.conf";

const readme = readFileSync(join(import.meta.dir, "../../README.md"), "utf8");
const [, screen = ""] = /^## On a Raspberry Pi[^\n]*\n([^]*?)\n## /m.exec(readme) ?? [];
const lines = [...screen.matchAll(/^ {4}(\S.*?)(?: {2,}#.*)?$/gm)].map(([, line]) => line!);
const line = (word: string) => lines.find((one) => one.includes(word))!;

describe.skipIf(whyWithoutMachine !== undefined)(titled("a node that kubeadm joined", whyWithoutMachine), () => {
  let world: World;
  let machine: Machine;
  let before: readonly MachineContainer[] = [];
  let after: readonly MachineContainer[] = [];
  let files: Record<string, string>;
  let bare: Record<string, string>;
  const inFolder = (command: string) => machine.mustRun(`cd /root/holdfast && ${command}`, 120_000);

  beforeAll(async () => {
    world = await startKubeadmWorld();
    machine = await Machine.start(world);
  }, 240_000);
  afterAll(async () => {
    if (process.env["HOLDFAST_LAB_KEEP"] !== undefined)
      for (const unit of ["kubelet", "holdfast", "holdfast-pods"]) console.log(await machine?.journal(unit));
    await machine?.[Symbol.asyncDispose]();
    await world?.[Symbol.asyncDispose]();
  });

  test("kubeadm joins it, and pods run", async () => {
    await machine.mustRun(`kubeadm join ${joinArguments(world)} --ignore-preflight-errors=all`, 180_000);
    await world.createNamespace(NAMESPACE);
    await world.apply(...workload("/opt").filter((object) => (object as { kind: string }).kind !== "Job"));
    writeFileSync(join(machine.disk, "etc/kubernetes/manifests/manifest.json"), JSON.stringify(staticPod()));
    await readyInCloud(world, ALL);
    before = await machine.running();
    expect(before).toHaveLength(ALL);
    files = machine.tree(...KUBEADMS);
    bare = machine.tree("etc", "local");
  }, 180_000);

  test("install.sh and adopt: committed within a minute, kube-proxy's and CoreDNS's containers alone are others", async () => {
    await inFolder(line("sh install.sh"));
    const log = watchReady(world);
    const beganMs = Date.now();
    const said = await inFolder(line("holdfast adopt"));
    const tookMs = Date.now() - beganMs;
    measured("adopt, from command to committed, with kube-proxy and CoreDNS behind it", seconds(tookMs));
    measured("adopt, node not Ready in the cloud's eyes", seconds(log.notReadyMs()));
    log.stop();
    expect(tookMs).toBeLessThan(60_000);
    expect(log.notReadyMs()).toBeLessThan(15_000);
    expect(said).toContain("Started anew once, to come through Holdfast: kube-proxy, coredns");
    const now = await machine.running();
    expect(ownPods(now)).toEqual(ownPods(before));
    expect(now.map(({ podUid }) => podUid)).toEqual(before.map(({ podUid }) => podUid));
    expect(machine.tree(...KUBEADMS)).toEqual(files);
    expect(await machine.mustRun("holdfast adopt")).toContain("adopted already");
    const check = (await machine.run("holdfast check")).stdout;
    expect(check).toMatch(new RegExp(`\\b${ALL} of ${ALL} pods come back`));
    expect(await machine.mustRun(`${line("holdfast status")} || true`)).toContain(
      "pods started here come through Holdfast, at https://10.96.0.1:10268",
    );
  }, 120_000);

  test("the cloud sees that it could be cut off now, and a rehearsed cut leaves nothing unanswered", async () => {
    const condition = 'jsonpath={.status.conditions[?(@.type=="HoldfastReady")].status}';
    await until(
      "HoldfastReady is True",
      async () => (await world.inCloud(["get", "node", NODE_NAME, "-o", condition])) === "True",
      60_000,
    );
    const ids = async () => (await machine.running()).map(({ id }) => id).sort();
    const running = await ids();
    const { exitCode, stdout, stderr } = await machine.run("holdfast rehearse --for 12s");
    expect(`${stdout}${stderr}`).toContain("Nothing was answered 503.");
    expect(exitCode).toBe(0);
    expect(await ids()).toEqual(running);
  }, 120_000);

  test("the power goes while it is cut: as many containers come back, and a Service's name answers", async () => {
    world.cut();
    const bootedMs = Date.now();
    await machine.powerCycle();
    await until("as many containers run", async () => (await machine.running()).length === ALL, 120_000);
    after = await machine.running();
    measured(
      "power to the last container",
      seconds(Math.max(...after.map(({ createdAtMs }) => createdAtMs)) - bootedMs),
    );
    expect(after.map(({ pod }) => pod)).toEqual(before.map(({ pod }) => pod));
    expect(before.map(({ id }) => id)).not.toContainAnyValues(after.map(({ id }) => id));
    const ask = `sh -c "printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 2 web.${NAMESPACE}.svc.cluster.local 80"`;
    const answer = await until(
      "a Service answers by its name",
      async () => /^web-\S+$/m.exec(await machine.exec("lone", ask))?.[0],
      60_000,
    );
    measured("power to a Service's answer by its name", seconds(Date.now() - bootedMs));
    expect(after.map(({ pod }) => pod)).toContain(answer);
    const status = await machine.run("holdfast status");
    expect(status.exitCode).toBe(3);
    expect(status.stdout).toContain("OFFLINE");
  }, 240_000);

  test("the link returns: no container is touched, and the node is ready", async () => {
    const healedMs = Date.now();
    world.heal();
    measured("link back until kubelet's lease is renewed", seconds(await heard(world, healedMs)));
    await readyInCloud(world, ALL);
    expect((await machine.running()).map(({ id }) => id)).toEqual(after.map(({ id }) => id));
  }, 180_000);

  test("kubelet renews its certificate through Holdfast, and Holdfast goes up with the new one", async () => {
    // A day of its year: kubelet renews it at once.
    await putEndingPair(world, machine, 86_400_000);
    await until("Holdfast uses it", async () => (await daysLeft(machine)) < 3);
    await machine.mustRun("systemctl restart kubelet");
    await until("kubelet has another one", async () =>
      /kubelet-client-\d/.test(await machine.mustRun(`readlink ${CURRENT_PAIR}`)),
    );
    await until("Holdfast uses that", async () => (await daysLeft(machine)) > 300);
    await heard(world, Date.now());
    expect((await machine.running()).map(({ id }) => id)).toEqual(after.map(({ id }) => id));
    files = machine.tree(...KUBEADMS);
  }, 120_000);

  test("revert: as before within fifteen seconds, and what was started here reaches the API server on", async () => {
    const beganMs = Date.now();
    await inFolder(line("holdfast revert"));
    measured("revert", seconds(Date.now() - beganMs));
    expect(Date.now() - beganMs).toBeLessThan(15_000);
    await heard(world, Date.now());
    expect((await machine.running()).map(({ id }) => id)).toEqual(after.map(({ id }) => id));
    expect(machine.tree(...KUBEADMS)).toEqual(files);
    // CoreDNS was started behind Holdfast and knows the API server by that port: a Service of now is heard of.
    await world.apply({
      apiVersion: "v1",
      kind: "Service",
      metadata: { name: "later", namespace: NAMESPACE },
      spec: { selector: { app: "web" }, ports: [{ port: 80, targetPort: 8080 }] },
    });
    await until(
      "CoreDNS has heard of it",
      async () => (await machine.exec("lone", "nslookup later.shop.svc.cluster.local")).includes("10.96."),
      60_000,
    );
  }, 120_000);

  test.each([
    ["reading this node", "holdfast adopt", true],
    ["restarting kubelet", "holdfast revert", false],
  ] as const)(
    "adopt is killed while it says %p: %s ends in one state",
    async (words, next, isAdopted) => {
      await machine.mustRun(
        `rm -f /root/said; setsid holdfast adopt > /root/said 2>&1 & pid=$!
      n=0; until grep -q '${words}' /root/said || [ $n -gt 600 ]; do sleep 0.05; n=$((n+1)); done; kill -KILL -$pid $pid`,
        60_000,
      );
      await machine.mustRun(next, 120_000);
      expect(existsSync(join(machine.disk, DROP_IN))).toBe(isAdopted);
      await heard(world, Date.now());
      expect(ownPods(await machine.running())).toEqual(ownPods(after));
      expect(machine.tree(...KUBEADMS)).toEqual(files);
      if (isAdopted) await machine.mustRun("holdfast revert");
    },
    240_000,
  );

  test("bypass.sh --revert without our executable, within five seconds", async () => {
    await machine.mustRun("holdfast adopt", 120_000);
    await machine.mustRun("chmod -x /usr/local/bin/holdfast");
    const beganMs = Date.now();
    await machine.mustRun("sh /usr/local/lib/holdfast/bypass.sh --revert");
    measured("bypass.sh --revert", seconds(Date.now() - beganMs));
    expect(Date.now() - beganMs).toBeLessThan(5_000);
    await heard(world, Date.now());
    await machine.mustRun("chmod +x /usr/local/bin/holdfast; holdfast revert");
    expect(machine.tree(...KUBEADMS)).toEqual(files);
  }, 180_000);

  test("uninstall with --purge leaves nothing", async () => {
    await inFolder(line("--purge"));
    expect(machine.tree("etc", "local")).toEqual({ ...bare, ...machine.tree("etc/kubernetes") });
    expect(existsSync(join(machine.disk, "var/lib/holdfast"))).toBe(false);
    expect((await machine.run("systemctl list-units --all 'holdfast*' --no-legend")).stdout.trim()).toBe("");
  }, 60_000);
});

const ownPods = (containers: readonly MachineContainer[]) =>
  containers.filter(({ pod }) => !/^(kube-proxy|coredns)-/.test(pod)).map(({ id, pod }) => `${pod} ${id}`);

/** How long the node was not Ready, as somebody sees who looks four times a second. */
function watchReady(world: World) {
  let isStopped = false;
  let lostMs = 0;
  const look = async () => {
    let lastMs = Date.now();
    while (!isStopped) {
      const status = await world.inCloud([
        ...["get", "node", NODE_NAME, "-o"],
        'jsonpath={.status.conditions[?(@.type=="Ready")].status}',
      ]);
      if (status !== "True") lostMs += Date.now() - lastMs;
      lastMs = Date.now();
      await Bun.sleep(250);
    }
  };
  void look();
  return { notReadyMs: () => lostMs, stop: () => void (isStopped = true) };
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
