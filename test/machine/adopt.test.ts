import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { startApiServer, type ApiServer } from "../../src/demo/api-server/api-server.ts";
import { loadKubeconfig } from "../../src/config/kubeconfig.ts";
import { holdfast } from "../cli/holdfast.ts";
import { startEdge, type Edge } from "../support/edge.ts";

const NODE = "edge1";
const LEASE = `/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/${NODE}`;
const DROP_IN = "/etc/systemd/system/kubelet.service.d/zz-holdfast.conf";
const KUBELET_CONF = "/etc/kubernetes/kubelet.conf";
const KUBEADM_DROP_IN = "/usr/lib/systemd/system/kubelet.service.d/10-kubeadm.conf";
const ADOPT_STEPS = ["journal", "files", "daemon", "compare", "drop-in", "kubelet", "judge", "adopted"];
const REVERT_STEPS = ["reverting", "drop-in back", "kubelet back", "daemon back", "files back", "reverted"];
const KUBEADM_TEXT = `[Service]
Environment="KUBELET_KUBECONFIG_ARGS=--bootstrap-kubeconfig=/etc/kubernetes/bootstrap-kubelet.conf --kubeconfig=${KUBELET_CONF}"
Environment="KUBELET_CONFIG_ARGS=--config=/var/lib/kubelet/config.yaml"
EnvironmentFile=-/var/lib/kubelet/kubeadm-flags.env
ExecStart=
ExecStart=/usr/bin/kubelet $KUBELET_KUBECONFIG_ARGS $KUBELET_CONFIG_ARGS $KUBELET_KUBEADM_ARGS
`;

const pod = {
  kind: "Pod",
  apiVersion: "v1",
  metadata: { name: "web-0", namespace: "shop", uid: "11111111-2222-3333-4444-555555555555" },
  spec: { nodeName: NODE, containers: [{ name: "app", image: "app" }] },
  status: {
    phase: "Running",
    containerStatuses: [{ name: "app", containerID: "containerd://aa", state: { running: {} } }],
  },
};

/** A kubeadm node in a folder: kubelet and systemd are this process, the way up and Holdfast are real. */
class World implements AsyncDisposable {
  readonly folder = mkdtempSync(join(tmpdir(), "holdfast-adopt-"));
  readonly root = join(this.folder, "root");
  readonly enabled = new Set<string>();
  asked: string[] = [];
  containers = ["aa", "bb"];
  /** What else a kubelet does at its start. */
  atKubeletStart: () => void | Promise<void> = () => undefined;
  isKubeletBroken = false;
  refuses = "";
  readonly control = Bun.serve({ port: 0, fetch: (request) => this.#hear(request) });

  constructor(
    readonly apiServer: ApiServer,
    readonly edge: Edge,
    direct: string,
    pair: { readonly cert: string; readonly key: string },
  ) {
    const pem = join(this.folder, "kubelet-client-current.pem");
    writeFileSync(pem, `${pair.cert}${pair.key}`);
    const config = JSON.parse(direct) as { users: { user: object }[] };
    config.users[0]!.user = { "client-certificate": pem, "client-key": pem };
    this.write(KUBELET_CONF, JSON.stringify(config));
    this.write("/var/lib/kubelet/config.yaml", "kind: KubeletConfiguration\n");
    this.write("/usr/lib/systemd/system/kubelet.service", "[Service]\nExecStart=/usr/bin/kubelet\n");
    this.write(KUBEADM_DROP_IN, KUBEADM_TEXT);
    for (const name of ["holdfast.service", "holdfast-pods.service", "holdfast-bypass.timer"])
      this.write(`/etc/systemd/system/${name}`, "[Unit]\n");
    this.write("/usr/local/lib/holdfast/bypass.sh", "");
  }

  write(path: string, text: string): void {
    mkdirSync(dirname(join(this.root, path)), { recursive: true });
    writeFileSync(join(this.root, path), text);
  }
  has(path: string): boolean {
    return existsSync(join(this.root, path));
  }

  /** Every file with its mode and bytes, every folder. */
  tree(): Record<string, string> {
    const found: Record<string, string> = {};
    for (const name of readdirSync(this.root, { recursive: true }) as string[]) {
      const path = join(this.root, name);
      const stat = statSync(path, { throwIfNoEntry: false });
      found[name] = stat?.isFile() === true ? `${stat.mode.toString(8)} ${readFileSync(path, "utf8")}` : "folder";
    }
    return found;
  }

  async run(command: "adopt" | "revert", killAt?: string): Promise<Record<string, unknown>> {
    const options = { root: this.root, stateDir: this.edge.stateDir, server: this.edge.url, killAt };
    const child = Bun.spawn(
      [
        process.execPath,
        join(import.meta.dir, "adopt-process.ts"),
        command,
        JSON.stringify({ ...options, control: this.control.url.origin }),
      ],
      { stdout: "pipe", stderr: "pipe" },
    );
    const [out, err] = await Promise.all([new Response(child.stdout).text(), new Response(child.stderr).text()]);
    await child.exited;
    if (killAt !== undefined) {
      expect({ signal: child.signalCode, out, err }).toEqual({ signal: "SIGKILL", out: "", err: "" });
      return {};
    }
    expect(err).toBe("");
    return JSON.parse(out) as Record<string, unknown>;
  }

  async #hear(request: Request): Promise<Response> {
    if (new URL(request.url).pathname === "/containers") return Response.json(this.containers);
    const asked = await request.text();
    this.asked.push(asked);
    const [verb, ...rest] = asked.split(" ");
    const unit = rest.at(-1) ?? "";
    const link = join(this.root, "/etc/systemd/system/wants", unit);
    if (asked === this.refuses) return new Response(null, { status: 500 });
    if (verb === "is-enabled") return new Response(null, { status: this.enabled.has(unit) ? 200 : 500 });
    if (verb === "enable" && !this.enabled.has(unit)) {
      mkdirSync(dirname(link), { recursive: true });
      symlinkSync("../x", link);
      this.enabled.add(unit);
    }
    if (verb === "disable" && this.enabled.delete(unit)) rmSync(link);
    if (asked === "restart kubelet") await this.#startKubelet();
    return new Response();
  }

  /** Kubelet's first act: its lease, by the kubeconfig that its unit names. */
  async #startKubelet(): Promise<void> {
    await this.atKubeletStart();
    if (this.isKubeletBroken) return;
    const path = this.has(DROP_IN) ? "/etc/holdfast/kubelet.kubeconfig" : KUBELET_CONF;
    const { server, caPem, credential } = loadKubeconfig(join(this.root, path));
    const { certPem: cert, keyPem: key } = credential.read() as { certPem: string; keyPem: string };
    const tls = { ca: caPem(), cert, key };
    const response = await fetch(server + LEASE, { tls }).catch(() => undefined);
    if (response === undefined) return;
    const lease = (await response.json()) as { spec: { renewTime: string } };
    lease.spec.renewTime = new Date(Date.parse(lease.spec.renewTime) + 10_000).toISOString();
    await fetch(server + LEASE, {
      ...{ tls, method: "PUT", body: JSON.stringify(lease) },
      headers: { "Content-Type": "application/json" },
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.control.stop(true);
    await this.edge[Symbol.asyncDispose]();
    await this.apiServer[Symbol.asyncDispose]();
    rmSync(this.folder, { recursive: true, force: true });
  }
}

async function startWorld(): Promise<World> {
  const namespace = (name: string) => ({ kind: "Namespace", apiVersion: "v1", metadata: { name } });
  const apiServer = await startApiServer({
    objects: [
      namespace("shop"),
      namespace("kube-node-lease"),
      {
        kind: "Node",
        apiVersion: "v1",
        metadata: { name: NODE },
        spec: { podCIDR: "10.244.1.0/24" },
        status: { conditions: [{ type: "Ready", status: "True" }] },
      },
      {
        kind: "Lease",
        apiVersion: "coordination.k8s.io/v1",
        metadata: { name: NODE, namespace: "kube-node-lease" },
        spec: { holderIdentity: NODE, renewTime: "2026-11-30T00:00:00.000000Z" },
      },
      pod,
    ] as never,
  });
  const keyPair = apiServer.cluster.clientCertificate(`system:node:${NODE}`, ["system:nodes"]);
  const direct = apiServer.kubeconfig({ user: `system:node:${NODE}`, keyPair });
  return new World(apiServer, await startEdge({ apiServer, kubeconfig: direct }), direct, keyPair);
}

describe("adopt", () => {
  let adopted: Record<string, string> = {};
  let world: World;
  beforeAll(async () => {
    world = await startWorld();
  });
  afterAll(async () => world[Symbol.asyncDispose]());

  test("kubelet comes through Holdfast, kubeadm's files are untouched, a second run changes nothing; revert needs no link", async () => {
    const before = world.tree();
    expect(await world.run("adopt")).toEqual({ node: NODE });
    adopted = world.tree();
    for (const [name, text] of Object.entries(before)) expect(adopted[name]).toBe(text);
    const kubeconfig = loadKubeconfig(join(world.root, "/etc/holdfast/kubelet.kubeconfig"));
    expect(kubeconfig.server).toBe(world.edge.url);
    expect(readFileSync(join(world.root, "/etc/holdfast/kubelet-direct.conf"), "utf8")).toContain(
      `--bootstrap-kubeconfig=/etc/kubernetes/bootstrap-kubelet.conf --kubeconfig=${KUBELET_CONF}"`,
    );
    expect(world.has(DROP_IN)).toBe(true);
    expect([...world.enabled]).toEqual(["holdfast-pods.service", "holdfast.service", "holdfast-bypass.timer"]);
    world.asked = [];
    expect(await world.run("adopt")).toEqual({ already: true });
    expect({ asked: world.asked, tree: world.tree() }).toEqual({ asked: [], tree: adopted });
    // As bypass.sh leaves it where kubelet serves by a certificate that is kept for it.
    world.write(DROP_IN.replace(".conf", ".serving.conf"), "[Service]\n");
    await world.apiServer.cut();
    expect(await world.run("revert")).toEqual({ reverted: true });
    const { "etc/systemd/system/wants": _, ...reverted } = world.tree();
    expect(reverted).toEqual(before);
    expect(world.asked.filter((asked) => asked === "restart kubelet")).toHaveLength(1);
    expect(await world.run("revert")).toEqual({ reverted: false });
    await world.apiServer.heal();
  });

  test.each(ADOPT_STEPS)("killed at %p: adopt goes on to the new state, revert to the old", async (step) => {
    const before = world.tree();
    await world.run("adopt", step);
    expect(await world.run("adopt")).toEqual({ node: NODE });
    expect(world.tree()).toEqual(adopted);
    await world.run("revert");
    expect(world.tree()).toEqual(before);
    await world.run("adopt", step);
    // Before its first turn was written down nothing was done.
    expect(await world.run("revert")).toEqual({ reverted: step !== "journal" });
    expect({ tree: world.tree(), enabled: [...world.enabled] }).toEqual({ tree: before, enabled: [] });
  });

  test.each(REVERT_STEPS)("revert killed at %p goes on, and adopt after it starts anew", async (step) => {
    const before = world.tree();
    await world.run("adopt");
    await world.run("revert", step);
    expect(await world.run("revert")).toEqual({ reverted: true });
    expect({ tree: world.tree(), enabled: [...world.enabled] }).toEqual({ tree: before, enabled: [] });
    await world.run("adopt");
    await world.run("revert", step);
    // Adopted still, where nothing had been taken back yet.
    expect(await world.run("adopt")).toEqual(step === "reverting" ? { already: true } : { node: NODE });
    expect(world.tree()).toEqual(adopted);
    await world.run("revert");
    expect(world.tree()).toEqual(before);
  });

  test.each<[string, (it: World) => unknown, string]>([
    ["kubelet does not renew its lease", (it) => (it.isKubeletBroken = true), "kubelet has not renewed its lease"],
    [
      "a container does not run any more",
      (it) => (it.atKubeletStart = () => void (it.containers = ["aa"])),
      "container bb",
    ],
    [
      "a container is another one, by its pod's status",
      (it) =>
        (it.atKubeletStart = () => {
          const status = {
            ...pod.status,
            containerStatuses: [{ ...pod.status.containerStatuses[0]!, containerID: "x" }],
          };
          it.apiServer.put({ ...pod, status } as never);
        }),
      "was restarted",
    ],
    [
      "pods would not reach Holdfast",
      (it) =>
        it.apiServer.put({
          kind: "Service",
          apiVersion: "v1",
          metadata: { name: "kubernetes", namespace: "default" },
          spec: { clusterIP: "127.0.0.99", ports: [{ name: "https", port: 443 }] },
        } as never),
      "without them: --ignore=pod-access",
    ],
    [
      "the configuration names another cluster's Service",
      (it) => {
        it.write(
          "/etc/holdfast/config.yaml",
          "apiVersion: holdfast.dev/v1alpha1\nkind: HoldfastConfiguration\npodAccess: {serviceAddress: 10.43.0.1, listen: 169.254.102.68:10268}\n",
        );
        it.apiServer.put({
          kind: "Service",
          apiVersion: "v1",
          metadata: { name: "kubernetes", namespace: "default" },
          spec: { clusterIP: "10.96.0.1", ports: [{ name: "https", port: 443 }] },
        } as never);
      },
      "Service default/kubernetes has 10.96.0.1",
    ],
    ["systemd does not start Holdfast", (it) => (it.refuses = "enable --now holdfast.service"), "systemctl enable"],
  ])("%s: everything goes back by itself", async (_, breaks, words) => {
    breaks(world);
    const before = world.tree();
    const { error } = await world.run("adopt");
    expect(error).toContain(words);
    expect(error).toContain("everything is as before");
    expect({ tree: world.tree(), enabled: [...world.enabled] }).toEqual({ tree: before, enabled: [] });
    world.isKubeletBroken = false;
    world.refuses = "";
    world.atKubeletStart = () => undefined;
    world.containers = ["aa", "bb"];
    world.apiServer.put(pod as never);
    world.apiServer.remove("Service", "default", "kubernetes");
    rmSync(join(world.root, "/etc/holdfast"), { recursive: true, force: true });
  });

  test.each<[string, (it: World) => void, (it: World) => void, string]>([
    ...["/var/lib/rancher/k3s", "/var/lib/rancher/rke2", "/var/lib/k0s", "/var/snap/microk8s"].map(
      (mark): [string, (it: World) => void, (it: World) => void, string] => [
        `another distribution (${mark})`,
        (it) => {
          rmSync(join(it.root, "/var/lib/kubelet/config.yaml"));
          mkdirSync(join(it.root, mark), { recursive: true });
        },
        (it) => {
          it.write("/var/lib/kubelet/config.yaml", "kind: KubeletConfiguration\n");
          rmSync(join(it.root, mark), { recursive: true });
        },
        "distribution",
      ],
    ),
    [
      "a drop-in that would win over ours",
      (it) => it.write("/etc/systemd/system/kubelet.service.d/zzz-mine.conf", KUBEADM_TEXT),
      (it) => rmSync(join(it.root, "/etc/systemd/system/kubelet.service.d"), { recursive: true }),
      "drop-in-order",
    ],
    [
      "an ExecStart that does not go by the variable",
      (it) => it.write(KUBEADM_DROP_IN, KUBEADM_TEXT.replace("$KUBELET_KUBECONFIG_ARGS ", "")),
      (it) => it.write(KUBEADM_DROP_IN, KUBEADM_TEXT),
      "kubelet-args",
    ],
    [
      "no unit of ours",
      (it) => rmSync(join(it.root, "/etc/systemd/system/holdfast.service")),
      (it) => it.write("/etc/systemd/system/holdfast.service", "[Unit]\n"),
      "units",
    ],
    [
      "no bypass",
      (it) => rmSync(join(it.root, "/usr/local/lib/holdfast/bypass.sh")),
      (it) => it.write("/usr/local/lib/holdfast/bypass.sh", ""),
      "bypass",
    ],
  ])("%s stands in the way, and nothing is changed", async (_, breaks, mends, id) => {
    breaks(world);
    const before = world.tree();
    world.asked = [];
    const { objections } = (await world.run("adopt")) as { objections: { id: string; next: string }[] };
    expect(objections.map((one) => one.id)).toEqual([id]);
    expect(objections[0]!.next).not.toBe("");
    expect({ asked: world.asked, tree: world.tree() }).toEqual({ asked: [], tree: before });
    mends(world);
  });

  test("without a link nothing is begun", async () => {
    await world.apiServer.cut();
    const { objections } = (await world.run("adopt")) as { objections: { id: string }[] };
    await world.apiServer.heal();
    expect(objections.map((one) => one.id)).toEqual(["api-server"]);
  });

  test("a damaged journal is said, with the way that does not need it", async () => {
    writeFileSync(join(world.edge.stateDir, "adopt.json"), "{");
    expect((await world.run("revert"))["error"]).toContain("bypass.sh --revert");
    rmSync(join(world.edge.stateDir, "adopt.json"));
  });

  test("only what may be ignored is, and revert takes no arguments", async () => {
    const ignored = await holdfast("adopt", "--ignore", "distribution");
    expect({ code: ignored.code, stderr: ignored.stderr }).toEqual({
      code: 2,
      stderr: expect.stringContaining("expected node-ready or bypass or pod-access"),
    });
    expect((await holdfast("revert", "now")).code).toBe(2);
  });
});
