/**
 * A node that nobody can dial, its tunnel, and gateways beside the API server.
 *
 *   cloud: API server, kubectl, gateways   <==NAT==   edge: kubelet, holdfast
 *
 * NAT is a rule in the edge's namespace: what comes in and was not asked for is
 * dropped. Gateways run as processes of the cloud with the very rights that
 * `holdfast manifests --gateway` gives them.
 */
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { LabNode } from "./node.ts";
import { IMAGE } from "./node-image.ts";
import { type LabProcess, type Output, runProcess, until } from "./processes.ts";
import { programPath } from "./build.ts";
import { holdfastPath } from "./requirements.ts";
import { type Holdfast, LOOPBACK_URL, NODE_NAME, startWorld, type World } from "./world.ts";

/** The namespace of the pods. */
export const SHOP = "shop";
/** Of the gateway, and of the guard. */
export const GATEWAY_NAMESPACE = "holdfast-system";
const AGENTS_PORT = 8443;
const HEALTH_PORT = 10_490;

/** A gateway, and where it is. */
export interface LabGateway {
  readonly process: LabProcess;
  readonly address: string;
  /** A metric's value. */
  metric(name: string): Promise<number>;
}

export class TunnelWorld implements AsyncDisposable {
  readonly gateways: LabGateway[] = [];

  private constructor(
    readonly world: World,
    readonly node: LabNode,
    private agent: Holdfast,
  ) {}

  /** A node with a talking pod behind NAT, two gateways, and the place in its status. */
  static async start(): Promise<TunnelWorld> {
    const world = await startWorld({
      // As kubeadm leaves it; a place in the serving certificate is another test's.
      apiServerArguments: ["--kubelet-certificate-authority="],
    });
    let node: LabNode | undefined;
    try {
      await world.createNamespace(SHOP);
      const gateways = await startGateways(world);
      const agent = await startAgent(world, gateways);
      node = await LabNode.start(world, {
        kubeconfig: world.proxyKubeconfig(agent.stateDir, world.certificateOf("node")),
      });
      behindNat(world);
      const whole = new TunnelWorld(world, node, agent);
      whole.gateways.push(...gateways);
      await whole.startTalker();
      await whole.placed();
      return whole;
    } catch (error) {
      await node?.[Symbol.asyncDispose]();
      await world[Symbol.asyncDispose]();
      throw error;
    }
  }

  get holdfast(): Holdfast {
    return this.agent;
  }

  /** kubectl beside the API server, whatever it answers. */
  async kubectl(
    args: readonly string[],
    options: { readonly input?: string; readonly timeoutMs?: number; readonly env?: Record<string, string> } = {},
  ): Promise<Output> {
    return await runProcess(this.world.network.within(this.world.network.cloud, this.commandOf(args)), options);
  }

  /** Starts a kubectl that stays; its stdout is the caller's. */
  startKubectl(args: readonly string[]): LabProcess {
    return this.world.startCloudProgram("kubectl", this.commandOf(args), "pipe");
  }

  /** The place that the tunnel has now, ADDRESS:PORT. */
  async place(): Promise<string> {
    return await until("the tunnel has a place", () => lastPlace(this.agent), 20_000);
  }

  /** Waits until the API server has the tunnel's place for the node's address. */
  async placed(): Promise<void> {
    const path = "jsonpath={.status.addresses[*].address} {.status.daemonEndpoints.kubeletEndpoint.Port}";
    await until(
      "the node is shown at its place",
      async () => {
        const [, address = "", port = ""] = /^(.*):(\d+)$/.exec(await this.place()) ?? [];
        const shown = (await this.world.inCloud(["get", "node", NODE_NAME, "-o", path])).split(" ");
        return shown.includes(address) && shown.at(-1) === port;
      },
      40_000,
    );
  }

  /** Waits until kubectl reaches the talker. @returns how long that took, in milliseconds. */
  async reached(timeoutMs = 30_000): Promise<number> {
    const startedMs = Date.now();
    await until(
      "kubectl exec reaches the pod",
      async () =>
        (await this.kubectl(["exec", "talker", "-n", SHOP, "--", "true"], { timeoutMs: 10_000 })).exitCode === 0,
      timeoutMs,
    );
    return Date.now() - startedMs;
  }

  /** Ends Holdfast at the edge and starts it anew on its state. */
  async restartAgent(signal: NodeJS.Signals, env: Readonly<Record<string, string>> = {}): Promise<void> {
    const { stateDir } = this.agent;
    await this.agent.stop(signal);
    this.agent = await startAgent(this.world, this.gateways, { stateDir, env });
  }

  /** Starts one gateway anew. */
  async restartGateway(index: number): Promise<void> {
    this.gateways[index] = await startGateway(this.world, index);
  }

  /** Connections that the gateways carry now. */
  async streams(): Promise<number> {
    // One that a test killed carries none.
    const counts = await Promise.all(
      this.gateways.map(async (gateway) =>
        gateway.process.isRunning ? await gateway.metric("holdfast_gateway_streams") : 0,
      ),
    );
    return counts.reduce((sum, count) => sum + count, 0);
  }

  /** The whole command of a kubectl beside the API server. */
  commandOf(args: readonly string[]): string[] {
    const flags = [`--cache-dir=${this.world.directory}/kubectl-tunnel`, `--kubeconfig=${this.world.cloudKubeconfig}`];
    return [programPath("kubectl"), args[0]!, ...flags, ...args.slice(1)];
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.node[Symbol.asyncDispose]();
    await this.world[Symbol.asyncDispose]();
  }

  /** A pod that says "line N" ten times a second and serves one page. */
  private async startTalker(): Promise<void> {
    const script = `mkdir -p /tmp/www; echo page > /tmp/www/index.html; httpd -p 127.0.0.1:8099 -h /tmp/www; i=0; while true; do echo "line $i"; i=$((i+1)); sleep 0.1; done`;
    await this.world.apply({
      apiVersion: "v1",
      kind: "Pod",
      metadata: { name: "talker", namespace: SHOP },
      spec: {
        nodeName: NODE_NAME,
        hostNetwork: true,
        automountServiceAccountToken: false,
        terminationGracePeriodSeconds: 0,
        tolerations: [{ operator: "Exists" }],
        containers: [
          { name: "app", image: IMAGE, imagePullPolicy: "Never", stdin: true, command: ["sh", "-c", script] },
        ],
      },
    });
    const phase = ["get", "pod", "talker", "-n", SHOP, "-o", "jsonpath={.status.phase}"];
    await until("the pod runs", async () => (await this.world.inCloud(phase)) === "Running", 90_000);
  }
}

/** What the agent's log says of its tunnel: the place, while it is open. */
function lastPlace({ process }: Holdfast): string | undefined {
  const lines = process.log.split("\n").filter((line) => /"message":"tunnel (open|lost)"/.test(line));
  const last = lines.at(-1);
  return last === undefined ? undefined : (JSON.parse(last) as { place?: string }).place;
}

/** The README's five lines, as they stand there. */
export function readmeLines(): string[] {
  const text = readFileSync(join(import.meta.dir, "../../README.md"), "utf8");
  const [, section = ""] = text.split("## The tunnel:");
  return section
    .split("\n")
    .filter((line) => line.startsWith("    "))
    .map((line) => line.trim().replace(/ +# on the node$/, ""));
}

/** Runs one of them in the cloud, or on the node, with this world's kubectl and Holdfast. */
export async function runLine(world: World, line: string, words: Readonly<Record<string, string>>): Promise<void> {
  const bin = join(world.directory, "readme-bin");
  mkdirSync(bin, { recursive: true });
  const shim = (name: string, command: readonly string[]) =>
    writeFileSync(join(bin, name), `#!/bin/sh\nexec ${command.map((word) => `'${word}'`).join(" ")} "$@"\n`, {
      mode: 0o755,
    });
  shim("kubectl", [programPath("kubectl"), `--kubeconfig=${world.cloudKubeconfig}`]);
  shim("holdfast", [holdfastPath]);
  const meant = Object.entries(words).reduce((text, [word, meaning]) => text.replaceAll(word, meaning), line);
  const command = ["sh", "-ec", `PATH="${bin}:$PATH"; ${meant}`];
  const done = await runProcess(world.network.within(world.network.cloud, command));
  if (done.exitCode !== 0) throw new Error(`The README's line "${line}" fails: ${done.stderr}`);
}

/** By the README's first two lines; what the Deployment would start is started here, twice. */
async function startGateways(world: World): Promise<LabGateway[]> {
  const [manifests = "", secret = ""] = readmeLines();
  Bun.spawnSync(["ip", "-n", world.network.cloud, "addr", "add", `${addressOf(world, 1)}/24`, "dev", "cloud0"]);
  const serving = world.pki.serving("gateway", [addressOf(world, 0), addressOf(world, 1)]);
  await runLine(world, manifests, { "gateway.example": `${addressOf(world, 0)},${addressOf(world, 1)}` });
  await runLine(world, secret, { "gateway.crt": serving.certificate, "gateway.key": serving.key });
  return [await startGateway(world, 0), await startGateway(world, 1)];
}

/** The gateways' addresses: the cloud's, and one more of its network. */
function addressOf({ network }: World, index: number): string {
  return index === 0 ? network.cloudAddress : network.cloudAddress.replace(/\d+$/, "3");
}

async function startGateway(world: World, index: number): Promise<LabGateway> {
  const address = addressOf(world, index);
  const token = (
    await world.inCloud(["create", "token", "holdfast-gateway", "-n", GATEWAY_NAMESPACE, "--duration=24h"])
  ).trim();
  const health = `127.0.0.1:${HEALTH_PORT + index}`;
  const files = await secretFiles(world);
  // The lab has no pods in the cloud, and nobody routes ClusterIPs to its API server.
  const here = {
    kubeconfig: world.kubeconfig(LOOPBACK_URL, { token }),
    listen: `${address}:${AGENTS_PORT}`,
    "tls-cert-file": files.certificate,
    "tls-key-file": files.key,
    mode: "port",
    "pod-ip": address,
    "health-listen": health,
  };
  const isHere = (arg: string) => Object.keys(here).some((name) => arg.startsWith(`--${name}=`));
  const process = world.startCloudProgram(`gateway-${index}`, [
    holdfastPath,
    ...(await deploymentArguments(world)).filter((arg) => !isHere(arg)),
    ...Object.entries(here).map(([name, value]) => `--${name}=${value}`),
  ]);
  await until(`gateway ${index} is ready; its log is ${process.logPath}`, async () => {
    if (!process.isRunning) throw new Error(`the gateway has ended: ${process.log.slice(-2000)}`);
    return await world.fetchInCloud(`http://${health}/readyz`).catch(() => undefined);
  });
  return {
    process,
    address,
    async metric(name) {
      const text = await world.fetchInCloud(`http://${health}/metrics`);
      const line = text.split("\n").find((one) => one.startsWith(`${name} `));
      return Number(line?.split(" ")[1] ?? Number.NaN);
    },
  };
}

/** What the Deployment would start. */
async function deploymentArguments(world: World): Promise<string[]> {
  const path = "jsonpath={.spec.template.spec.containers[0].args}";
  return JSON.parse(
    await world.inCloud(["get", "deployment", "holdfast-gateway", "-n", GATEWAY_NAMESPACE, "-o", path]),
  ) as string[];
}

/** The Secret, as the kubelet of a gateway's pod would mount it. */
async function secretFiles(world: World): Promise<{ readonly certificate: string; readonly key: string }> {
  const { data } = JSON.parse(
    await world.inCloud(["get", "secret", "holdfast-gateway-tls", "-n", GATEWAY_NAMESPACE, "-o", "json"]),
  ) as { data: Record<string, string> };
  const write = (name: string) => {
    const path = join(world.directory, `gateway-${name}`);
    writeFileSync(path, Buffer.from(data[name]!, "base64"), { mode: 0o600 });
    return path;
  };
  return { certificate: write("tls.crt"), key: write("tls.key") };
}

/** By the README's third line, in a configuration of this world; the fourth is this start. */
async function startAgent(
  world: World,
  gateways: readonly LabGateway[],
  again: { readonly stateDir?: string; readonly env?: Readonly<Record<string, string>> } = {},
): Promise<Holdfast> {
  const config = join(world.directory, "tunnel-config.yaml");
  writeFileSync(config, "apiVersion: holdfast.dev/v1alpha1\nkind: HoldfastConfiguration\n");
  const [, , tunnel = ""] = readmeLines();
  const urls = gateways.map(({ address }) => `"wss://${address}:${AGENTS_PORT}"`).join(", ");
  await runLine(world, tunnel, { "/etc/holdfast/config.yaml": config, '"wss://gateway.example"': urls });
  return await world.startHoldfast({ ...again, args: [`--config=${config}`] });
}

/** Nobody reaches the edge who was not asked for. */
export function behindNat(world: World): void {
  const rules = `table inet lab_nat {
    chain input {
      type filter hook input priority 0; policy accept;
      iifname "edge0" ct state new drop
    }
  }`;
  const done = Bun.spawnSync(["ip", "netns", "exec", world.network.edge, "nft", "-f", "-"], {
    stdin: Buffer.from(rules),
    stderr: "pipe",
  });
  if (!done.success) throw new Error(`Cannot make a NAT: ${done.stderr.toString()}`);
}
