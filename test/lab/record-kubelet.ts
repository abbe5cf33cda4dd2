/**
 * `bun test/lab/record-kubelet.ts [--kubelet 1.34]`: writes down what a stock
 * kubelet asks of the API server, for the fast tier to replay.
 *
 * A real node stands before a real control plane with a relay between them, and
 * goes through a life that touches the rows of the specification: it joins, is
 * approved, runs pods with every kind of volume, static pods, a Job, answers
 * exec and logs, loses pods, and is restarted. What was asked, once of each
 * kind, and the objects it was asked of go to `test/node/recorded`.
 *
 * No secret enters a fixture: answers' bodies are not written down, a token in
 * a TokenReview and the Secrets' data are replaced, and a fixture in which one
 * is still found is not written. Nor does anything of the machine: names and
 * ids that chance or the machine gave are replaced by others of the same
 * length, so that the protobuf around them stays what kubelet wrote.
 *
 * Needs what the node tier of `test:lab` needs. HOLDFAST_LAB_KEEP keeps the logs.
 */
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { buildPrograms, RELEASE_VARIABLES } from "./build.ts";
import { LabNode } from "./node.ts";
import { clearLeftovers, LAB_DIR_VARIABLE, until } from "./processes.ts";
import type { KubeObject } from "../support/recorded-kubelet.ts";
import { anonymous, thinned, writeFixture } from "./recorded-fixture.ts";
import type { RelayedRequest, RelayOptions } from "./recording-relay.ts";
import { findProgram, NODE_PROGRAMS, POD_NETWORK_PROGRAMS, whyNotRunnable } from "./requirements.ts";
import { rowsWorkload, staticPodNamed } from "./rows-workload.ts";
import { NAMESPACE } from "./workload.ts";
import { NODE_NAME, startWorld, type World } from "./world.ts";

const RELAY_PORT = 6444;
const FOLDER = join(import.meta.dir, "../node/recorded");

/** Kinds that a fixture's world is made of, as kubectl names them. */
const KINDS = [
  "pods",
  "services",
  "configmaps",
  "secrets",
  "serviceaccounts",
  "persistentvolumes",
  "persistentvolumeclaims",
  "volumeattachments.storage.k8s.io",
  "resourceclaims.resource.k8s.io",
  "runtimeclasses.node.k8s.io",
  "csidrivers.storage.k8s.io",
  "clustertrustbundles.certificates.k8s.io",
];

const at = process.argv.indexOf("--kubelet");
const release = at < 0 ? undefined : process.argv[at + 1];
if (release !== undefined) process.env[RELEASE_VARIABLES["kubelet"]!] = release;
const missing = whyNotRunnable() ?? firstMissing();
if (missing !== undefined) throw new Error(`Cannot record a kubelet: ${missing}`);
buildPrograms();
const directory = mkdtempSync(join(tmpdir(), "holdfast-lab-"));
process.env[LAB_DIR_VARIABLE] = directory;
try {
  await recordKubelet();
} finally {
  clearLeftovers(directory);
  if (process.env["HOLDFAST_LAB_KEEP"] === undefined) rmSync(directory, { recursive: true, force: true });
  else console.log(`lab: kept ${directory}`);
}

async function recordKubelet(): Promise<void> {
  await using world = await startWorld({ controllerManager: true });
  const relay = await startRelay(world);
  const kubeconfig = world.kubeconfig(`https://127.0.0.1:${RELAY_PORT}`, world.certificateOf("node"));
  await using node = await LabNode.start(world, { kubeconfig, podNetwork: "bridge", asksForServing: true });
  const recorded = new Recorded(relay);
  const life = new Life(world, node, kubeconfig, recorded);
  const { objects, tokens } = await life.run();
  const version = (
    await world.inCloud(["get", "node", NODE_NAME, "-o", "jsonpath={.status.nodeInfo.kubeletVersion}"])
  ).trim();
  const kernel = await world.inCloud(["get", "node", NODE_NAME, "-o", "jsonpath={.status.nodeInfo.kernelVersion}"]);
  const fixture = anonymous(
    { kubelet: version, node: NODE_NAME, objects, requests: thinned(recorded.requests()) },
    { directory: world.directory, kernel, tokens },
  );
  mkdirSync(FOLDER, { recursive: true });
  const [minor] = /\d+\.\d+/.exec(version) ?? [];
  writeFixture(join(FOLDER, `kubelet-${minor}.jsonl`), fixture);
}

function firstMissing(): string | undefined {
  const programs = Object.keys({ ...NODE_PROGRAMS, ...POD_NETWORK_PROGRAMS });
  const first = programs.find((program) => findProgram(program) === undefined);
  return first === undefined ? undefined : `${first} is not installed`;
}

async function startRelay(world: World): Promise<string> {
  const log = join(world.directory, "relayed.jsonl");
  const options: RelayOptions = {
    port: RELAY_PORT,
    serving: { cert: world.pki.certificate("apiserver"), key: world.pki.key("apiserver") },
    upstream: { host: world.network.cloudAddress, port: 6443, ca: world.pki.ca },
    client: { cert: world.pki.certificate("node"), key: world.pki.key("node") },
    log,
  };
  writeFileSync(log, "");
  const program = join(import.meta.dir, "recording-relay.ts");
  const relay = world.startOnNode("relay", [process.execPath, program, JSON.stringify(options)]);
  await until("the relay stands", () => relay.log.includes("ready"));
  return log;
}

/** What the relay has written down so far. */
class Recorded {
  constructor(private readonly log: string) {}

  requests(): RelayedRequest[] {
    const text = readFileSync(this.log, "utf8");
    return text
      .slice(0, text.lastIndexOf("\n") + 1)
      .split("\n")
      .filter((line) => line !== "")
      .map((line) => JSON.parse(line) as RelayedRequest);
  }

  /** Waits for a request, with this status, after the first `from` ones. */
  async has(method: string, target: RegExp, status: number, from = 0, timeoutMs = 90_000): Promise<void> {
    await until(
      `kubelet has sent ${method} ${target.source} and got ${status}`,
      () =>
        this.requests()
          .slice(from)
          .some((one) => one.method === method && one.status === status && target.test(one.target)),
      timeoutMs,
    );
  }
}

/** The node's days, in order. */
class Life {
  private readonly hasNewKinds: boolean;

  constructor(
    private readonly world: World,
    private readonly node: LabNode,
    private readonly kubeconfig: string,
    private readonly recorded: Recorded,
  ) {
    // Pod certificates and trust bundles are on from 1.37.
    this.hasNewKinds = release === undefined;
  }

  /** @returns the objects as they were while all pods were there, and the tokens that were used. */
  async run(): Promise<{ objects: KubeObject[]; tokens: string[] }> {
    await this.approveServing();
    await this.world.createNamespace(NAMESPACE);
    await this.world.apply(...rowsWorkload(this.node.directory, this.hasNewKinds ? this.world.pki.ca : undefined));
    for (const name of ["manifest", "passing"]) this.writeStaticPod(name);
    await this.attachVolume();
    await this.allWork();
    const tokens = await this.askTheNode();
    const objects = await this.objects();
    await this.losePods();
    await this.restartKubelet();
    return { objects, tokens };
  }

  private async approveServing(): Promise<void> {
    const names = await this.namesOf("csr");
    await this.world.inCloud(["certificate", "approve", ...names]);
  }

  /** Waits until there is one. */
  private async namesOf(resource: string): Promise<string[]> {
    return await until(`there is one of ${resource}`, async () => {
      const names = (await this.world.inCloud(["get", resource, "-o", "jsonpath={.items[*].metadata.name}"])).trim();
      return names === "" ? undefined : names.split(" ");
    });
  }

  private writeStaticPod(name: string): void {
    writeFileSync(join(this.node.manifests, `${name}.json`), JSON.stringify(staticPodNamed(name)));
  }

  /** What the volume's driver would do: there is none. */
  private async attachVolume(): Promise<void> {
    const [attachment = ""] = await this.namesOf("volumeattachments");
    const attached = ["patch", "volumeattachment", attachment, "--subresource=status", "--type=merge"];
    await this.world.inCloud([...attached, "-p", '{"status":{"attached":true}}']);
  }

  private async allWork(): Promise<void> {
    for (const pod of ["configured", "volume", "lone", `manifest-${NODE_NAME}`, `passing-${NODE_NAME}`])
      await until(
        `${pod} runs`,
        async () =>
          (await this.world.inCloud(["get", "pod", pod, "-n", NAMESPACE, "-o", "jsonpath={.status.phase}"])) ===
          "Running",
        90_000,
      );
    await until(
      "the Job has ended",
      async () =>
        (await this.world.inCloud(["get", "job", "once", "-n", NAMESPACE, "-o", "jsonpath={.status.succeeded}"])) ===
        "1",
    );
    const { recorded } = this;
    await recorded.has("GET", /\/volumeattachments\//, 200);
    await recorded.has("GET", /\/resourceclaims\//, 200);
    if (!this.hasNewKinds) return;
    await recorded.has("GET", /\/clustertrustbundles/, 200);
    await recorded.has("POST", /\/podcertificaterequests/, 201);
  }

  /** Asks kubelet by certificate and by token: it reviews both. */
  private async askTheNode(): Promise<string[]> {
    await this.world.inCloud(["logs", "lone", "-n", NAMESPACE]);
    await this.world.inCloud(["exec", "lone", "-n", NAMESPACE, "--", "sh", "-c", "exit 0"]);
    const token = await this.world.tokenFor("scraper", ["get"]);
    const url = `https://${this.world.network.edgeAddress}:10250/metrics`;
    const script = `await fetch(process.argv[1], { tls: { rejectUnauthorized: false }, headers: { Authorization: "Bearer " + process.argv[2] } })`;
    await this.world.runAtEdge([process.execPath, "-e", script, url, token], {}, 20_000);
    await this.recorded.has("POST", /\/subjectaccessreviews/, 201);
    await this.recorded.has("POST", /\/tokenreviews/, 201);
    return [token];
  }

  private async losePods(): Promise<void> {
    await this.world.inCloud(["delete", "pod", "lone", "-n", NAMESPACE, "--wait=false"]);
    rmSync(join(this.node.manifests, "passing.json"));
    for (const pod of ["lone", `passing-${NODE_NAME}`])
      await this.recorded.has("DELETE", new RegExp(`/pods/${pod}$`), 200);
  }

  private async restartKubelet(): Promise<void> {
    const from = this.recorded.requests().length;
    await this.node.stopKubelet();
    this.node.startKubelet(this.kubeconfig);
    await this.recorded.has("POST", /\/nodes$/, 409, from);
    await this.recorded.has("GET", /\/csinodes\//, 200, from);
    await this.recorded.has("PATCH", /\/pods\/.*\/status/, 200, from);
    await this.recorded.has("PUT", /\/leases\//, 200, from);
    // Half a minute after the start, slices of drivers that did not come back are removed.
    await this.recorded.has("DELETE", /\/resourceslices/, 200, from);
  }

  /** Everything a kubelet may be asked about, and what it made itself, which its own requests will make again. */
  private async objects(): Promise<KubeObject[]> {
    const objects: KubeObject[] = [];
    for (const kind of [...KINDS, "nodes", "csinodes.storage.k8s.io"]) {
      const { items } = JSON.parse(await this.world.inCloud(["get", kind, "-A", "-o", "json"])) as {
        items: KubeObject[];
      };
      objects.push(...items);
    }
    return objects;
  }
}
