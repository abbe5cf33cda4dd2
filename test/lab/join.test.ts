/**
 * A bare machine with systemd as its first process joins a cluster of kubeadm
 * behind Holdfast, and lives there: certificates that last for minutes are
 * renewed under requests without a pause, Holdfast is upgraded under kubelet's
 * feet, and kubelet's certificate ends in the middle of a cut. Steps of one
 * story, in order.
 *
 * With --long kubelet renews its certificate ten times by itself, too.
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { createHash } from "node:crypto";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { compile, TARGETS } from "../../scripts/build-targets.ts";
import { Informer } from "./informer.ts";
import { writeKubeconfig } from "./kubeconfig.ts";
import { joinArguments, startKubeadmWorld } from "./kubeadm-cluster.ts";
import { Machine, type MachineContainer } from "./machine.ts";
import { ADD_ONS, CURRENT_PAIR, heard, putEndingPair, readyInCloud } from "./machine-story.ts";
import { isLong, measured, seconds } from "./node-world.ts";
import { until } from "./processes.ts";
import { titled, whyWithoutMachine } from "./requirements.ts";
import { idlePod, NAMESPACE } from "./workload.ts";
import { NODE_NAME, type World } from "./world.ts";

const ROTATIONS = 10;
/** Who has read the first CA alone trusts its successors so far (README, Certificates). */
const CA_ROTATIONS = 4;
const KUBELETS_ROTATIONS = isLong ? 10 : 1;
const POD = "lone";
const ALL = ADD_ONS + 1;
/** Signers date back by five minutes: a kubelet that counts from there renews after half of this, on average. */
const LIFE = "130s";
/** From the cut on kubelet's pair has this long. */
const LEFT_MS = 25_000;
const UPGRADED = "0.1.1";
const STATE = "/var/lib/holdfast";
const SERVER = "https://127.0.0.1:10268";
const DROP_IN = "etc/systemd/system/kubelet.service.d/zz-holdfast.conf";

describe.skipIf(whyWithoutMachine !== undefined)(titled("a bare machine", whyWithoutMachine), () => {
  let world: World;
  let machine: Machine;
  let informer: Informer;
  let bare: Record<string, string>;
  let before: readonly MachineContainer[] = [];
  const inFolder = (command: string) => machine.mustRun(`cd /root/holdfast && ${command}`, 120_000);

  beforeAll(async () => {
    world = await startKubeadmWorld({ controllerManagerArguments: [`--cluster-signing-duration=${LIFE}`] });
    machine = await Machine.start(world);
    bare = machine.tree("etc", "local");
    const { certificate, key } = world.certificateOf("node") as { certificate: string; key: string };
    writeFileSync(join(machine.disk, "root/asking.pem"), readFileSync(certificate, "utf8") + readFileSync(key, "utf8"));
  }, 240_000);
  afterAll(async () => {
    if (process.env["HOLDFAST_LAB_KEEP"] !== undefined)
      for (const unit of ["kubelet", "holdfast"]) console.log(await machine?.journal(unit, 200));
    await machine?.[Symbol.asyncDispose]();
    await world?.[Symbol.asyncDispose]();
  });

  test("joins by a token and the pin of the cluster's CA, behind Holdfast from kubelet's first start", async () => {
    await inFolder("HOLDFAST_ARTIFACT_DIR=dist sh install.sh");
    const wrongPin = joinArguments(world).replace(/sha256:\w{8}/, "sha256:00000000");
    const refused = await machine.run(`holdfast join ${wrongPin}`);
    expect([refused.exitCode, refused.stderr]).toEqual([1, expect.stringContaining("none of the 1 pinned")]);
    expect(existsSync(join(machine.disk, "etc/kubernetes/kubelet.conf"))).toBe(false);
    const beganMs = Date.now();
    const said = await machine.mustRun(`holdfast join ${joinArguments(world)}`, 180_000);
    measured("holdfast join, from command to a node behind Holdfast", seconds(Date.now() - beganMs));
    expect(said).toContain("has joined, behind Holdfast");
    expect(existsSync(join(machine.disk, DROP_IN))).toBe(true);
    await world.createNamespace(NAMESPACE);
    await world.apply(idlePod(POD));
    await readyInCloud(world, ALL);
    measured("holdfast join, until node, add-ons and a pod are ready", seconds(Date.now() - beganMs));
    expect(await machine.mustRun("holdfast status || true")).toContain("pods started here come through Holdfast");
  }, 240_000);

  test("Holdfast's restart as an open watch sees it: no wrong answer, and told within two seconds", async () => {
    // The node's own pair is ours to renew from now on.
    const config = join(machine.disk, "etc/holdfast/config.yaml");
    writeFileSync(config, `${readFileSync(config, "utf8")}certificates: {rotateNodeClient: true}\n`);
    informer = startInformer(world, machine);
    await informer.synced();
    await expectBackAfter(world, machine, informer, "restart", () => machine.mustRun("systemctl restart holdfast"));
  }, 120_000);

  test(
    `${ROTATIONS} rotations of client and serving certificate, ${CA_ROTATIONS} of the CA, under requests without a pause, and kubelet's own: nobody sees an error, nothing is listed again`,
    async () => {
      const mark = world.audit.mark();
      const requests = await startRequests(machine);
      const pki = (name: string) => machine.mustRun(`cat ${STATE}/pki/${name}`);
      const seen = { "node-client.pem": new Set(), "serving.crt": new Set(), "local-ca.crt": new Set() };
      const errorsBefore = informer.errors.length;
      // A day of its year: kubelet renews it at once.
      await putEndingPair(world, machine, 86_400_000);
      await machine.mustRun("systemctl restart kubelet");
      for (let at = 0; at < ROTATIONS; at++) {
        for (const name of ["node-client", "serving", ...(at < CA_ROTATIONS ? ["local-ca"] : [])]) {
          const beganMs = Date.now();
          await machine.mustRun(`holdfast cert rotate ${name}`);
          if (name === "node-client") measured("a rotation of the node's certificate", seconds(Date.now() - beganMs));
        }
        for (const [name, texts] of Object.entries(seen)) texts.add(await pki(name));
        await toldOf(world, informer, `at-${at}`);
      }
      const kubelets = await rotationsOfKubelet(machine, KUBELETS_ROTATIONS, isLong ? 1_500_000 : 60_000);
      measured("kubelet's own rotations", `${kubelets}`);
      await heard(world, Date.now());
      await toldOf(world, informer, "after-all");
      const { answers, errors } = await requests.end();
      measured("requests on new connections meanwhile", `${answers.length}`);
      expect(errors).toBe("");
      expect(new Set(answers)).toEqual(new Set(["200"]));
      expect(answers.length).toBeGreaterThan(10 * ROTATIONS);
      expect(Object.values(seen).map(({ size }) => size)).toEqual([ROTATIONS, ROTATIONS, CA_ROTATIONS]);
      expect(informer.errors.slice(errorsBefore)).toEqual([]);
      expect(informer.offences()).toEqual([]);
      // A kubelet that was started lists for itself; of ours there is none.
      const lists = world.audit.since(mark).filter(({ verb, isStreamingList }) => verb === "list" || isStreamingList);
      expect(lists.filter(({ userAgent }) => userAgent.startsWith("holdfast/")).map(({ uri }) => uri)).toEqual([]);
    },
    isLong ? 1_800_000 : 180_000,
  );

  test("an upgrade under a running kubelet: no container is touched, watches are back within two seconds", async () => {
    before = await machine.running();
    await putUpgrade(machine);
    await expectBackAfter(world, machine, informer, "upgrade", () =>
      inFolder("HOLDFAST_ARTIFACT_DIR=dist sh install.sh"),
    );
    expect(await machine.mustRun("holdfast version")).toContain(UPGRADED);
    expect(await inFolder("HOLDFAST_ARTIFACT_DIR=dist sh install.sh")).toContain("up to date");
    expect((await machine.running()).map(({ id }) => id)).toEqual(before.map(({ id }) => id));
    expect(informer.offences()).toEqual([]);
  }, 180_000);

  test("kubelet's certificate ends in the middle of a cut: who shows it is served on until the return, no container is touched, and after a reboot all are back", async () => {
    // What goes up at the return must have outlived the cut.
    await world.restartControllerManager(["--cluster-signing-duration=1h"]);
    await machine.mustRun("holdfast cert rotate node-client");
    await informer.stop();
    world.cut();
    await putEndingPair(world, machine, LEFT_MS);
    const endsMs = Date.now() + LEFT_MS;
    await machine.mustRun("systemctl restart kubelet");
    const pid = () => machine.mustRun("systemctl show -p MainPID -p NRestarts kubelet");
    const started = await pid();
    await Bun.sleep(Math.max(0, endsMs - Date.now()) + 5_000);
    const ask = `curl -sS -m 10 -o /dev/null -w '%{http_code}' --cacert ${STATE}/pki/local-ca.crt`;
    const pair = `--cert ${CURRENT_PAIR} --key ${CURRENT_PAIR}`;
    expect(await machine.mustRun(`${ask} ${pair} ${SERVER}/api/v1/nodes/${NODE_NAME}`)).toBe("200");
    expect(await pid()).toBe(started);
    expect((await machine.running()).map(({ id }) => id)).toEqual(before.map(({ id }) => id));
    // The kubelet that boots has no certificate to show.
    await machine.powerCycle();
    const bootedMs = Date.now();
    await until("all containers run again", async () => (await machine.running()).length === before.length, 120_000);
    measured(
      "power lost after kubelet's certificate had ended, while cut: power on to the last container",
      seconds(Date.now() - bootedMs),
    );
    before = await machine.running();
    world.heal();
    await until("it is over with the return", async () =>
      (await machine.mustRun(`${ask} ${pair} ${SERVER}/api/v1/nodes/${NODE_NAME}`)).includes("401"),
    );
    // A kubelet without a certificate asks for none: whoever comes gives it one.
    await putEndingPair(world, machine, 86_400_000);
    await machine.mustRun("systemctl restart kubelet");
    await heard(world, Date.now());
    await readyInCloud(world, ALL);
    expect((await machine.running()).map(({ id }) => id)).toEqual(before.map(({ id }) => id));
  }, 300_000);

  test("uninstall refuses under a kubelet that comes through Holdfast; after revert nothing is left but what is kubeadm's", async () => {
    const refused = await machine.run("cd /root/holdfast && sh install.sh --uninstall --purge");
    expect(refused.exitCode).not.toBe(0);
    expect(refused.stderr).toContain("holdfast revert");
    expect(await machine.mustRun("holdfast version")).toContain(UPGRADED);
    await machine.mustRun("holdfast revert", 120_000);
    await heard(world, Date.now());
    await inFolder("sh install.sh --uninstall --purge");
    const left = machine.tree("etc", "local");
    expect(Object.keys(left).filter((path) => !(path in bare) && !path.startsWith("etc/kubernetes/"))).toEqual([]);
    for (const [path, sum] of Object.entries(bare)) expect([path, left[path]]).toEqual([path, sum]);
    expect(existsSync(join(machine.disk, STATE))).toBe(false);
    expect((await machine.run("systemctl list-units --all 'holdfast*' --no-legend")).stdout.trim()).toBe("");
  }, 180_000);
});

/** The pods of this node, followed by client-go through Holdfast, in the node's name. */
function startInformer(world: World, machine: Machine): Informer {
  const kubeconfig = writeKubeconfig(join(world.directory, "informer.kubeconfig"), {
    server: SERVER,
    ca: join(machine.disk, STATE, "pki/local-ca.crt"),
    credential: world.certificateOf("node"),
  });
  const kind = { mode: "typed", content: "json", watchList: true } as const;
  return Informer.start(world, kubeconfig, kind, { resource: "pods", fieldSelector: `spec.nodeName=${NODE_NAME}` });
}

/** Changes the pod in the cloud, and waits until the informer has been told. @returns how long that took, in milliseconds. */
async function toldOf(world: World, informer: Informer, word: string): Promise<number> {
  const from = informer.lines.length;
  await world.inCloud(["annotate", "pod", POD, "-n", NAMESPACE, `lab/word=${word}`, "--overwrite"]);
  const beganMs = Date.now();
  await until("the informer is told", () =>
    informer.changes(from).some(({ event, key }) => event === "updated" && key === `${NAMESPACE}/${POD}`),
  );
  return Date.now() - beganMs;
}

/** Holdfast goes and comes: whoever asks meanwhile is refused the connection or answered rightly, and open watches go on. */
async function expectBackAfter(
  world: World,
  machine: Machine,
  informer: Informer,
  what: string,
  happens: () => Promise<unknown>,
): Promise<void> {
  const requests = await startRequests(machine);
  const mark = world.audit.mark();
  await happens();
  const backMs = Date.now();
  await toldOf(world, informer, what);
  const tookMs = Date.now() - backMs;
  const { answers, gapMs } = await requests.end();
  measured(`${what}: nobody answered for at most`, seconds(gapMs));
  measured(`${what}: an open watch is told of a change made after it, kubectl's time included`, seconds(tookMs));
  // 000: no connection; 429: come again, with Retry-After, by one that is stopping.
  expect([...new Set(answers)].filter((code) => code !== "000" && code !== "429")).toEqual(["200"]);
  expect(gapMs).toBeLessThan(2_000);
  expect(tookMs).toBeLessThan(4_000);
  // Kubelet looks at a request of its own for a certificate whenever it has made one.
  const lists = world.audit
    .since(mark)
    .filter(({ verb, isStreamingList, uri }) => (verb === "list" || isStreamingList) && !/signingrequests/.test(uri));
  expect(lists.map(({ userAgent, uri }) => `${userAgent} ${uri}`)).toEqual([]);
}

/** Reads of the node in kubelet's name, each on a connection of its own, until they are ended. */
async function startRequests(machine: Machine) {
  const ask = `curl -sS -m 10 -o /dev/null -w '%{http_code} %{time_total}\\n' --cacert ${STATE}/pki/local-ca.crt \
    --cert /root/asking.pem --key /root/asking.pem ${SERVER}/api/v1/nodes/${NODE_NAME}`;
  await machine.mustRun(`rm -f /root/over /root/asked*
    (while [ ! -f /root/over ]; do date +%s%3N >> /root/asked-at; ${ask} >> /root/asked 2>> /root/asked-errors; done) > /dev/null 2>&1 &`);
  await until("they are answered", async () => (await machine.run("grep -c 200 /root/asked")).stdout.trim() > "0");
  return {
    /** @returns the answers' codes, curl's complaints, and the longest time from one answer to the next, in milliseconds. */
    async end() {
      await machine.mustRun("touch /root/over; sleep 1");
      const text = (name: string) => {
        const path = join(machine.disk, "root", name);
        return existsSync(path) ? readFileSync(path, "utf8") : "";
      };
      const answers = text("asked")
        .trim()
        .split("\n")
        .map((line) => line.split(" ")[0]!);
      const at = text("asked-at").trim().split("\n").map(Number);
      const answered = at.filter((_, index) => answers[index] === "200");
      const gapMs = Math.max(0, ...answered.slice(1).map((ms, index) => ms - answered[index]!));
      return { answers, errors: text("asked-errors"), gapMs };
    },
  };
}

/** Waits until kubelet has so many pairs of its own making, each in a file of its own. @returns how many. */
async function rotationsOfKubelet(machine: Machine, count: number, timeoutMs: number): Promise<number> {
  const known = async () =>
    Number(await machine.mustRun(`ls /var/lib/kubelet/pki | grep -c '^kubelet-client-2' || true`)) - 1;
  await until(`kubelet has renewed its certificate ${count} times`, async () => (await known()) >= count, timeoutMs);
  return await known();
}

/** The same program by another version, in the folder that is installed from. */
async function putUpgrade(machine: Machine): Promise<void> {
  const { bunTarget, name } = TARGETS.find(({ arch }) => arch === process.arch)!;
  const outfile = join(machine.disk, "root/holdfast/dist", name);
  await compile({
    entry: join(import.meta.dir, "../../src/main.ts"),
    outfile,
    bunTarget,
    defines: { HOLDFAST_VERSION: UPGRADED, HOLDFAST_COMMIT: "lab", HOLDFAST_BUILT_AT: "unknown" },
  });
  const sum = createHash("sha256").update(readFileSync(outfile)).digest("hex");
  writeFileSync(`${outfile}.sha256`, `${sum}  ${name}\n`);
}
