import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { createHash, X509Certificate } from "node:crypto";
import { existsSync, lstatSync, mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join as path } from "node:path";
import { CompactSign } from "jose";
import { loadKubeconfig } from "../../src/config/kubeconfig.ts";
import { startApiServer, type ApiServer } from "../../src/demo/api-server/api-server.ts";
import { mintCluster } from "../../src/demo/api-server/mint.ts";
import { adopt } from "../../src/machine/adopt.ts";
import { join, type JoinParts } from "../../src/machine/join.ts";
import { joinDevice, type DeviceJoinError } from "../../src/machine/join-device.ts";
import { joinOptionsOf, readJoinFile, type JoinFile, type JoinOptions } from "../../src/machine/join-options.ts";
import { preflight, preflightBare } from "../../src/machine/preflight.ts";
import { holdfast } from "../cli/holdfast.ts";
import { eventually } from "../support/client.ts";
import { startEdge, type Edge } from "../support/edge.ts";

const NODE = "gw-1";
const TOKEN = "abcdef.0123456789abcdef";
const BOOTSTRAPPER = { name: "system:bootstrap:abcdef", groups: ["system:bootstrappers"] };
const KUBELET_CONF = "/etc/kubernetes/kubelet.conf";
const DROP_IN = "/etc/systemd/system/kubelet.service.d/zz-holdfast.conf";
const KUBEADM_TEXT = `[Service]
Environment="KUBELET_KUBECONFIG_ARGS=--bootstrap-kubeconfig=/etc/kubernetes/bootstrap-kubelet.conf --kubeconfig=${KUBELET_CONF}"
EnvironmentFile=-/var/lib/kubelet/kubeadm-flags.env
ExecStart=
ExecStart=/usr/bin/kubelet $KUBELET_KUBECONFIG_ARGS $KUBELET_KUBEADM_ARGS
`;

/** SHA-256 of the CA's key as kubeadm prints it. */
const pinOf = (ca: string) =>
  `sha256:${createHash("sha256")
    .update(new X509Certificate(ca).publicKey.export({ type: "spki", format: "der" }))
    .digest("hex")}`;

const signed = async (text: string, kid = "abcdef", secret = "0123456789abcdef") => {
  const whole = await new CompactSign(Buffer.from(text))
    .setProtectedHeader({ alg: "HS256", kid })
    .sign(Buffer.from(secret));
  return whole.replace(/\..*\./, "..");
};

/** cluster-info as kubeadm and the bootstrap signer leave it. */
async function clusterInfo(apiServer: ApiServer, change: { text?: string; signature?: string } = {}) {
  const ca = Buffer.from(apiServer.cluster.ca).toString("base64");
  const text =
    change.text ??
    `apiVersion: v1\nkind: Config\nclusters:\n- name: ""\n  cluster:\n    certificate-authority-data: ${ca}\n    server: ${apiServer.url}\n`;
  const signature = change.signature ?? (await signed(text));
  return {
    kind: "ConfigMap",
    apiVersion: "v1",
    metadata: { name: "cluster-info", namespace: "kube-public" },
    data: { kubeconfig: text, "jws-kubeconfig-abcdef": signature },
  };
}

/** A bare machine in a folder, with kubeadm's packages; kubelet and systemd are this process. */
class Bare implements AsyncDisposable {
  readonly root = mkdtempSync(path(tmpdir(), "holdfast-join-"));
  readonly steps: string[] = [];
  asked: string[] = [];
  isKubeletBroken = false;
  #nowMs = 0;
  readonly #control = Bun.serve({
    port: 0,
    fetch: async (request) =>
      new Response(null, { status: (await this.machine.systemctl(...(await request.text()).split(" "))) ? 200 : 500 }),
  });

  constructor(readonly edge: Edge) {
    this.write("/usr/lib/systemd/system/kubelet.service", "[Service]\nExecStart=/usr/bin/kubelet\n");
    this.write("/usr/lib/systemd/system/kubelet.service.d/10-kubeadm.conf", KUBEADM_TEXT);
    for (const name of ["holdfast.service", "holdfast-bypass.timer"])
      this.write(`/etc/systemd/system/${name}`, "[Unit]\n");
    this.write("/usr/local/lib/holdfast/bypass.sh", "");
  }

  readonly machine = {
    root: this.root,
    systemctl: async (...args: readonly string[]) => {
      this.asked.push(args.join(" "));
      if (args[0] === "is-enabled" || args[0] === "is-active") return false;
      if (args.join(" ") === "restart kubelet") await this.#startKubelet();
      return true;
    },
    containers: async () => undefined,
    stopContainer: async () => undefined,
    nowMs: () => this.#nowMs,
    wait: async (ms: number) => void (this.#nowMs += ms),
    onStep: (step: string) => void this.steps.push(step),
  };

  at(name: string): string {
    return path(this.root, name);
  }
  text(name: string): string {
    return readFileSync(this.at(name), "utf8");
  }
  write(name: string, text: string): void {
    mkdirSync(dirname(this.at(name)), { recursive: true });
    writeFileSync(this.at(name), text);
  }

  get parts(): JoinParts {
    const { objections, unit } = preflightBare(this.machine, true);
    expect(objections).toEqual([]);
    return {
      machine: this.machine,
      hostName: "raspberrypi",
      unit: unit!,
      stateDir: this.edge.stateDir,
      server: this.edge.url,
    };
  }

  /** Joins in a process that is killed at a step. */
  async killedAt(step: string, options: JoinOptions): Promise<void> {
    const { stateDir, server } = this.parts;
    const given = { root: this.root, stateDir, server, control: this.#control.url.origin, killAt: step, join: options };
    const child = Bun.spawn(
      [process.execPath, path(import.meta.dir, "adopt-process.ts"), "join", JSON.stringify(given)],
      { stdout: "pipe", stderr: "pipe" },
    );
    const out = await new Response(child.stdout).text();
    await child.exited;
    expect({ signal: child.signalCode, out }).toEqual({ signal: "SIGKILL", out: "" });
  }

  /** Kubelet's first acts: it registers its node with what its flags say, and makes its lease. */
  async #startKubelet(): Promise<void> {
    if (this.isKubeletBroken) return;
    const conf = existsSync(this.at(DROP_IN)) ? "/etc/holdfast/kubelet.kubeconfig" : KUBELET_CONF;
    const { server, caPem, credential } = loadKubeconfig(this.at(conf));
    const { certPem: cert, keyPem: key } = credential.read() as { certPem: string; keyPem: string };
    const [, labels = ""] = /--node-labels=([^ "]+)/.exec(this.text("/var/lib/kubelet/kubeadm-flags.env")) ?? [];
    const send = (method: string, where: string, object?: object) =>
      fetch(server + where, {
        method,
        tls: { ca: caPem(), cert, key },
        headers: { "Content-Type": "application/json" },
        ...(object === undefined ? {} : { body: JSON.stringify(object) }),
      });
    await send("POST", "/api/v1/nodes", {
      kind: "Node",
      apiVersion: "v1",
      metadata: { name: NODE, labels: Object.fromEntries(labels.split(",").map((one) => one.split("="))) },
    });
    const leases = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";
    const lease = {
      kind: "Lease",
      apiVersion: "coordination.k8s.io/v1",
      metadata: { name: NODE, namespace: "kube-node-lease" },
      spec: { holderIdentity: NODE, renewTime: new Date(Date.now() + this.asked.length).toISOString() },
    };
    if ((await send("POST", leases, lease)).status !== 409) return;
    const present = (await (await send("GET", `${leases}/${NODE}`)).json()) as { metadata: object };
    await send("PUT", `${leases}/${NODE}`, { ...lease, metadata: present.metadata });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#control.stop(true);
    rmSync(this.root, { recursive: true, force: true });
    rmSync(path(this.edge.stateDir, "adopt.json"), { force: true });
    rmSync(path(this.edge.stateDir, "pki/join-key.pem"), { force: true });
  }
}

describe("join", () => {
  let apiServer: ApiServer;
  let edge: Edge;
  let said: JoinFile;
  const options = (more: JoinFile = {}) => joinOptionsOf({ ...said, ...more }, "raspberrypi");

  beforeAll(async () => {
    apiServer = await startApiServer({
      allowsAnonymous: true,
      tokens: { [TOKEN]: BOOTSTRAPPER },
      // As kubeadm's bindings have it: everybody may read cluster-info, who boots three things.
      signing: { verdict: "approve" },
      authorize: (user, { verb, resource, namespace }) =>
        user.groups.includes("system:nodes") ||
        user.groups.includes("system:masters") ||
        (resource === "configmaps" && namespace === "kube-public" && verb === "get") ||
        (user.name === BOOTSTRAPPER.name &&
          ((resource === "certificatesigningrequests" && (verb === "create" || verb === "get")) ||
            (verb === "get" && (resource === "configmaps" || resource === "nodes")))),
      objects: [
        { kind: "Namespace", apiVersion: "v1", metadata: { name: "kube-node-lease" } },
        {
          kind: "ConfigMap",
          apiVersion: "v1",
          metadata: { name: "kubelet-config", namespace: "kube-system" },
          data: {
            kubelet:
              'apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\nrotateCertificates: true\nsyncFrequency: 0s\ncontainerRuntimeEndpoint: ""\n',
          },
        },
      ] as never,
    });
    said = { apiServer: apiServer.url, token: TOKEN, caCertHashes: [pinOf(apiServer.cluster.ca)], nodeName: NODE };
    const keyPair = apiServer.cluster.clientCertificate(`system:node:${NODE}`, ["system:nodes"]);
    edge = await startEdge({ apiServer, kubeconfig: apiServer.kubeconfig({ user: `system:node:${NODE}`, keyPair }) });
    apiServer.put((await clusterInfo(apiServer)) as never);
  });
  afterAll(async () => {
    await edge[Symbol.asyncDispose]();
    await apiServer[Symbol.asyncDispose]();
  });
  const forget = () => {
    apiServer.remove("Node", "", NODE);
    apiServer.remove("Lease", "kube-node-lease", NODE);
  };

  test("a bare machine is a node as kubeadm makes one, and its kubelet has known no other way than ours", async () => {
    await using bare = new Bare(edge);
    const file = { ...said, labels: { "example.com/site": "north" }, taints: ["dedicated=edge:NoSchedule"], pool: "a" };
    expect(await join(options(file), bare.parts)).toBe(NODE);
    expect(apiServer.object("Node", "", NODE)).toMatchObject({
      metadata: { labels: { "example.com/site": "north", "holdfast.dev/pool": "a" } },
    });
    expect(bare.text("/var/lib/kubelet/kubeadm-flags.env")).toBe(
      `KUBELET_KUBEADM_ARGS="--node-labels=example.com/site=north,holdfast.dev/pool=a --register-with-taints=dedicated=edge:NoSchedule --hostname-override=${NODE}"\n`,
    );
    expect(bare.text("/etc/kubernetes/pki/ca.crt")).toBe(apiServer.cluster.ca);
    expect(Bun.YAML.parse(bare.text("/var/lib/kubelet/config.yaml"))).toEqual({
      apiVersion: "kubelet.config.k8s.io/v1beta1",
      kind: "KubeletConfiguration",
      rotateCertificates: true,
      syncFrequency: "0s",
      containerRuntimeEndpoint: "unix:///run/containerd/containerd.sock",
    });
    const current = bare.at("/var/lib/kubelet/pki/kubelet-client-current.pem");
    expect(lstatSync(current).isSymbolicLink()).toBe(true);
    expect(statSync(current).mode & 0o777).toBe(0o600);
    expect(new X509Certificate(readFileSync(current)).subject).toBe(`O=system:nodes\nCN=system:node:${NODE}`);
    expect(loadKubeconfig(bare.at(KUBELET_CONF)).server).toBe(apiServer.url);
    // The drop-in lay there before kubelet was started for the first time.
    expect(bare.asked.filter((asked) => asked.endsWith(" kubelet"))).toEqual([
      "stop kubelet",
      "enable kubelet",
      "restart kubelet",
    ]);
    expect(bare.steps.indexOf("drop-in")).toBeLessThan(bare.steps.indexOf("kubelet"));
    // No token stays anywhere, and neither does the key's first place.
    const grep = Bun.spawnSync(["grep", "-rl", TOKEN.slice(7), bare.root, edge.stateDir]);
    expect(grep.stdout.toString()).toBe("");
    expect(existsSync(path(edge.stateDir, "pki/join-key.pem"))).toBe(false);
    forget();
  });

  test.each(["discover", "certificate", "node files", "joined", "files", "compare", "drop-in", "kubelet", "judge"])(
    "killed at %p: the next run goes on to the same node",
    async (step) => {
      await using bare = new Bare(edge);
      const requests = apiServer.objects("CertificateSigningRequest").length;
      await bare.killedAt(step, options());
      expect(await join(options(), bare.parts)).toBe(NODE);
      // One request per machine, whatever was lost.
      expect(apiServer.objects("CertificateSigningRequest").length - requests).toBe(1);
      expect(existsSync(bare.at(DROP_IN))).toBe(true);
      forget();
    },
  );

  test("a request whose answer was lost is found again", async () => {
    await using bare = new Bare(edge);
    apiServer.behaviour.signing = { verdict: "wait" };
    await expect(join(options(), bare.parts)).rejects.toThrow("kubectl certificate approve holdfast-");
    const waiting = apiServer
      .objects("CertificateSigningRequest")
      .find(({ status }) => (status as { certificate?: string } | undefined)?.certificate === undefined);
    apiServer.behaviour.signing = { verdict: "approve" };
    apiServer.remove("CertificateSigningRequest", "", (waiting!["metadata"] as { name: string }).name);
    expect(await join(options(), bare.parts)).toBe(NODE);
    const name = (waiting!["metadata"] as { name: string }).name;
    expect(apiServer.object("CertificateSigningRequest", "", name)).toMatchObject({ status: {} });
    forget();
  });

  test("a machine that kubeadm joined is adopted: nothing of the cluster is asked anew", async () => {
    await using bare = new Bare(edge);
    await join(options(), bare.parts);
    rmSync(bare.at(DROP_IN));
    rmSync(path(edge.stateDir, "adopt.json"));
    bare.steps.length = 0;
    const since = apiServer.requests.length;
    const { objections, unit, isNew } = await preflight(bare.machine, true, true);
    expect({ ids: objections.map(({ id }) => id), isNew }).toEqual({ ids: ["node-ready"], isNew: false });
    bare.isKubeletBroken = true;
    await expect(adopt(bare.machine, { stateDir: edge.stateDir, server: edge.url, isNew }, unit!)).rejects.toThrow(
      "kubelet has not renewed its lease",
    );
    expect(apiServer.count({ resource: "certificatesigningrequests" }, since)).toBe(0);
    forget();
  });

  test("kubelet that does not come up behind Holdfast: the node goes its own way, and that is said", async () => {
    await using bare = new Bare(edge);
    bare.isKubeletBroken = true;
    const error = await join(options(), bare.parts).catch((one: Error) => one.message);
    expect(error).toContain("has joined, and goes its own way");
    expect(error).toContain("next: holdfast adopt");
    expect(existsSync(bare.at(DROP_IN))).toBe(false);
    expect(bare.asked.at(-1)).toBe("restart kubelet");
  });

  test.each<[string, () => Promise<void>, JoinFile, string]>([
    [
      "another cluster's CA behind the address",
      async () => undefined,
      { caCertHashes: [pinOf(mintCluster().ca)] },
      "none of the 1 pinned",
    ],
    [
      "a token that nobody knows",
      async () => undefined,
      { token: "zzzzzz.0123456789abcdef" },
      'token "zzzzzz" is unknown',
    ],
    [
      "the same token id with another secret",
      async () => undefined,
      { token: "abcdef.9999999999999999" },
      "is not signed with this token",
    ],
    [
      "a signature of other words",
      async () => {
        apiServer.put((await clusterInfo(apiServer, { signature: await signed("something else") })) as never);
      },
      {},
      "is not signed with this token",
    ],
    [
      "a signature of no algorithm at all",
      async () => {
        const header = Buffer.from('{"alg":"none","kid":"abcdef"}').toString("base64url");
        apiServer.put((await clusterInfo(apiServer, { signature: `${header}..` })) as never);
      },
      {},
      "is not signed with this token",
    ],
    [
      "a signature for another token's id",
      async () => {
        const text = (await clusterInfo(apiServer)).data.kubeconfig;
        apiServer.put((await clusterInfo(apiServer, { signature: await signed(text, "fedcba") })) as never);
      },
      {},
      "is not signed with this token",
    ],
    [
      "a cluster that names a server without TLS",
      async () => {
        const text = (await clusterInfo(apiServer)).data.kubeconfig.replace("https:", "http:");
        apiServer.put((await clusterInfo(apiServer, { text })) as never);
      },
      {},
      "names no https server",
    ],
    [
      "a Ready node of that name",
      async () => {
        apiServer.put({
          kind: "Node",
          apiVersion: "v1",
          metadata: { name: NODE },
          status: { conditions: [{ type: "Ready", status: "True" }] },
        } as never);
      },
      {},
      "is there and Ready",
    ],
    [
      "a request that is denied",
      async () => void (apiServer.behaviour.signing = { verdict: "deny" }),
      {},
      "Denied: NotWanted: not this one",
    ],
  ])("%s: nothing is written, and no credential was sent before the proof", async (_, breaks, more, words) => {
    await using bare = new Bare(edge);
    await breaks();
    const since = apiServer.requests.length;
    const error = await join(options(more), bare.parts).catch((one: Error) => one.message);
    expect(error).toContain(words);
    expect(error).not.toContain(TOKEN.slice(7));
    expect(existsSync(bare.at("/etc/kubernetes"))).toBe(false);
    const [first] = apiServer.requests.slice(since);
    expect(first!.headers["authorization"]).toBeUndefined();
    apiServer.put((await clusterInfo(apiServer)) as never);
    apiServer.behaviour.signing = { verdict: "approve" };
    forget();
  });

  test("a device joins by the text of its file, and says whether another file must come", async () => {
    await using bare = new Bare(edge);
    const text = (more: JoinFile = {}) => JSON.stringify({ ...said, ...more });
    const device = { stateDir: edge.stateDir, server: edge.url, path: "holdfast-join.yaml", hostName: "raspberrypi" };
    const failed = (given: string) =>
      joinDevice(bare.machine, given, device).then(
        () => undefined,
        ({ isFinal, message }: DeviceJoinError) => ({ isFinal, isSecretTold: message.includes(TOKEN.slice(7)) }),
      );
    const isFinal = { isFinal: true, isSecretTold: false };
    expect(await failed("apiServer: 10.0.0.2:6443\ntokne: x\n")).toEqual(isFinal);
    expect(await failed(text({ token: "zzzzzz.0123456789abcdef" }))).toEqual(isFinal);
    expect(await failed(text({ caCertHashes: [pinOf(mintCluster().ca)] }))).toEqual(isFinal);
    await apiServer.cut();
    expect(await failed(text())).toEqual({ isFinal: false, isSecretTold: false });
    await apiServer.heal();
    // A certificate that Holdfast does not go up with until its link is back would be a longer wait.
    await eventually(
      () => edge.client.get("/healthz"),
      ({ status }) => status !== 503,
    );
    const outcome = { nodeName: NODE, server: apiServer.url };
    expect(await joinDevice(bare.machine, text(), device)).toEqual(outcome);
    const since = apiServer.requests.length;
    expect(await joinDevice(bare.machine, text(), device)).toEqual(outcome);
    expect(apiServer.requests.slice(since).filter(({ resource }) => resource === "configmaps")).toEqual([]);
    forget();
  });

  test("a CA file of another cluster stops it before anything is written", async () => {
    await using bare = new Bare(edge);
    bare.write("/etc/kubernetes/pki/ca.crt", mintCluster().ca);
    await expect(join(options(), bare.parts)).rejects.toThrow("kubeadm reset");
    expect(existsSync(bare.at(KUBELET_CONF))).toBe(false);
  });
});

describe("what join is told", () => {
  const whole = { apiServer: "10.0.0.2:6443", token: TOKEN, caCertHashes: [`sha256:${"a".repeat(64)}`] };

  test("an address as kubeadm prints it, the host name as the node's", () => {
    expect(joinOptionsOf(whole, "RaspberryPi")).toEqual({
      server: "https://10.0.0.2:6443",
      tokenId: "abcdef",
      tokenSecret: "0123456789abcdef",
      pins: ["a".repeat(64)],
      nodeName: "raspberrypi",
      labels: {},
      taints: [],
    });
    expect(joinOptionsOf({ ...whole, apiServer: "https://[fd00::2]:443" }, "a").server).toBe("https://[fd00::2]");
  });

  test.each<[string, object, string]>([
    ["no pin", { ...whole, caCertHashes: [] }, "caCertHashes is missing"],
    ["no token", { ...whole, token: undefined }, "token is missing"],
    ["no address", { ...whole, apiServer: undefined }, "apiServer is missing"],
    ["an address without TLS", { ...whole, apiServer: "http://10.0.0.2:6443" }, "apiServer: expected an address"],
    ["an address without a port", { ...whole, apiServer: "10.0.0.2" }, "apiServer: expected an address"],
    ["a pin that is none", { ...whole, caCertHashes: ["sha256:abc"] }, "caCertHashes.0: expected sha256:"],
    ["a token of another shape", { ...whole, token: "secret-thing" }, "token: expected a bootstrap token"],
    [
      "the guard's own label",
      { ...whole, labels: { "node-restriction.kubernetes.io/holdfast": "hold" } },
      "kubectl label node",
    ],
    ["a role", { ...whole, labels: { "node-role.kubernetes.io/edge": "" } }, "kubectl label node"],
    ["a flag in a label", { ...whole, labels: { a: 'b" --config=/tmp/x' } }, "a label's value"],
    ["a taint without an effect", { ...whole, taints: ["dedicated=edge"] }, "taints.0: expected a taint"],
    ["a node's name that is none", { ...whole, nodeName: "Gateway_1" }, "nodeName: expected a name"],
  ])("%s is refused in words", (_, said, words) => {
    const error = (() => {
      try {
        joinOptionsOf(said as never, "raspberrypi");
        return "";
      } catch (one) {
        return (one as Error).message;
      }
    })();
    expect(error).toContain(words);
    expect(error).not.toContain("secret-thing");
  });

  test("a file's fault is said with its line, never with the token", () => {
    const folder = mkdtempSync(path(tmpdir(), "holdfast-join-file-"));
    const file = path(folder, "holdfast-join.yaml");
    writeFileSync(file, "apiServer: 10.0.0.2:6443\ntoken: not-a-token-secret\n");
    expect(() => readJoinFile(file)).toThrow(/holdfast-join.yaml:2: field "token": expected a bootstrap token/);
    expect(() => readJoinFile(file)).not.toThrow(/secret/);
    writeFileSync(file, "apiServer: 10.0.0.2:6443\ncaCertHash: []\n");
    expect(() => readJoinFile(file)).toThrow('unknown field "caCertHash" in HoldfastJoin, did you mean "caCertHashes"');
    writeFileSync(file, `apiServer: 10.0.0.2:6443\nlabels: {site: north}\npool: a\n`);
    expect(readJoinFile(file)).toEqual({ apiServer: "10.0.0.2:6443", labels: { site: "north" }, pool: "a" });
    rmSync(folder, { recursive: true });
  });

  test("the command takes what kubeadm prints, and says what is missing", async () => {
    const lacking = await holdfast("join", "10.0.0.2:6443", "--token", TOKEN);
    expect({ code: lacking.code, said: lacking.stderr.includes("caCertHashes is missing") }).toEqual({
      code: 2,
      said: true,
    });
    const wrong = await holdfast("join", "10.0.0.2:6443", "--token", TOKEN, "--label", "north");
    expect(wrong.stderr).toContain("--label: expected KEY=VALUE");
    expect(lacking.stderr + wrong.stderr).not.toContain(TOKEN.slice(7));
  });
});
