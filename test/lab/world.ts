/**
 * One world: a control plane in the cloud, an edge, and the link between them.
 *
 *   namespace cloud                        namespace edge
 *   etcd, kube-apiserver,       ======     holdfast, kubectl, informers
 *   kube-controller-manager      WAN
 *
 * All of it real, all of it under one temporary folder, ended by pid when the
 * world is disposed of. Worlds do not see each other, so several may run at once.
 */
import { randomBytes } from "node:crypto";
import { cpSync, mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Audit } from "./audit.ts";
import { programPath } from "./build.ts";
import {
  apiServerArguments,
  controllerManagerArguments,
  ETCD_URL,
  etcdArguments,
  schedulerArguments,
} from "./control-plane.ts";
import { type LabCredential, writeKubeconfig } from "./kubeconfig.ts";
import { Network } from "./network.ts";
import { mintPki, type Pki } from "./pki.ts";
import { LAB_DIR_VARIABLE, LabProcess, type Output, runProcess, startProcess, until } from "./processes.ts";
import { holdfastPath } from "./requirements.ts";

/** The node beyond the WAN, and that beside the API server where a test starts one. */
export const NODE_NAME = "edge1";
export const CLOUD_NODE_NAME = "cloud1";
const SLOW_DEVICE = "slow0";
/** The API server as its neighbours in the cloud reach it, whatever the link does. */
export const LOOPBACK_URL = "https://127.0.0.1:6443";
const LISTEN = "127.0.0.1:10268";
const HEALTH_LISTEN = "127.0.0.1:10267";

export interface WorldOptions {
  /** Default false: namespaces and service accounts are then made by `createNamespace`. */
  readonly controllerManager?: boolean;
  /** Default false: pods then name their node themselves. */
  readonly scheduler?: boolean;
  readonly apiServerArguments?: readonly string[];
  readonly controllerManagerArguments?: readonly string[];
}

export interface KubectlOptions {
  readonly kubeconfig?: string;
  readonly input?: string;
  readonly timeoutMs?: number;
  /** Default the lab's own. */
  readonly program?: string;
}

/** A request to the API server in anybody's name. */
export interface CloudRequest {
  readonly method: string;
  readonly path: string;
  readonly body: object;
  /** Default a merge patch. */
  readonly contentType?: string;
  readonly user: string;
  readonly groups?: readonly string[];
}

/** Its answer, whatever it is. */
export interface CloudAnswer {
  readonly status: number;
  readonly body: string;
}

/** One started `holdfast run`. */
export interface Holdfast extends AsyncDisposable {
  readonly stateDir: string;
  readonly process: LabProcess;
  /** Ends it; SIGKILL is the power cut. */
  stop(signal?: NodeJS.Signals): Promise<void>;
}

export class World implements AsyncDisposable {
  readonly audit: Audit;
  readonly pki: Pki;
  /** Admin from within the cloud, by loopback: works while the link is cut. */
  readonly cloudKubeconfig: string;
  /** Admin, and the node's own identity, straight to the API server from the edge. */
  readonly adminKubeconfig: string;
  readonly nodeKubeconfig: string;
  private readonly running: LabProcess[] = [];
  private etcd: LabProcess | undefined;
  private apiServer: LabProcess | undefined;
  private controllerManager: LabProcess | undefined;
  private standby: LabProcess | undefined;
  private fileCount = 0;

  private constructor(
    readonly directory: string,
    readonly network: Network,
    private readonly options: WorldOptions,
  ) {
    this.audit = new Audit(directory, network.edgeAddress);
    this.pki = mintPki(
      join(directory, "pki"),
      { cloud: network.cloudAddress, edge: network.edgeAddress },
      { cloud: CLOUD_NODE_NAME, edge: NODE_NAME },
    );
    this.cloudKubeconfig = this.kubeconfig(LOOPBACK_URL, this.certificateOf("admin"));
    this.adminKubeconfig = this.kubeconfig(this.apiServerUrl, this.certificateOf("admin"));
    this.nodeKubeconfig = this.kubeconfig(this.apiServerUrl, this.certificateOf("node"));
  }

  static async start(options: WorldOptions = {}): Promise<World> {
    const directory = mkdtempSync(join(process.env[LAB_DIR_VARIABLE] ?? tmpdir(), "world-"));
    const network = Network.start(randomBytes(3).toString("hex"));
    const world = new World(directory, network, options);
    try {
      await world.startControlPlane();
      return world;
    } catch (error) {
      await world[Symbol.asyncDispose]();
      throw error;
    }
  }

  get apiServerUrl(): string {
    return `https://${this.network.cloudAddress}:6443`;
  }

  /** The client certificate minted under this name, as a credential. */
  certificateOf(name: string): LabCredential {
    return { certificate: this.pki.certificate(name), key: this.pki.key(name) };
  }

  /** A kubeconfig for the API server itself, or for any server of the cluster's CA. */
  kubeconfig(server: string, credential: LabCredential): string {
    return writeKubeconfig(this.path("kubeconfig"), { server, ca: this.pki.ca, credential });
  }

  /** A kubeconfig for a client of Holdfast. */
  proxyKubeconfig(stateDir: string, credential: LabCredential): string {
    const ca = join(stateDir, "pki/local-ca.crt");
    return writeKubeconfig(this.path("kubeconfig"), { server: `https://${LISTEN}`, ca, credential });
  }

  /** Pulls the cable. */
  cut(): void {
    this.network.cut();
  }

  /** Makes the link a black hole. */
  drop(): void {
    this.network.drop();
  }

  heal(): void {
    this.network.heal();
  }

  /**
   * Makes the link slow and lossy until the returned object is disposed of.
   *
   * @param delayMs each way; the round trip takes twice that.
   * @param loss the share of packets lost each way, in [0, 1].
   * @param bytesPerSecond each way; default as fast as the machine.
   */
  async slowDown(delayMs: number, loss: number, bytesPerSecond = 0): Promise<AsyncDisposable> {
    const { cloud, edge } = this.network;
    this.network.detour(SLOW_DEVICE);
    const sockets = [this.path("slow"), this.path("slow")] as const;
    const start = (namespace: string, own: string, peer: string) => {
      const line = [`${delayMs}ms`, `${loss}`, `${bytesPerSecond}`];
      const command = [programPath("slow-link"), SLOW_DEVICE, own, peer, ...line];
      const entered = this.network.within(namespace, command);
      return this.own(startProcess("slow-link", entered, { logPath: this.path("slow-link.log") }));
    };
    const ends = [start(cloud, sockets[0], sockets[1]), start(edge, sockets[1], sockets[0])];
    await until("both ends of the slow link stand", () => ends.every((end) => end.log.includes("ready")));
    return {
      [Symbol.asyncDispose]: async () => {
        for (const end of ends) await end.stop("SIGKILL");
        this.network.endDetour(SLOW_DEVICE);
      },
    };
  }

  /** Runs kubectl at the edge, as admin unless told otherwise, with nothing kept from earlier calls. */
  async kubectl(args: readonly string[], options: KubectlOptions = {}): Promise<Output> {
    return await runProcess(this.kubectlCommand(args, options.kubeconfig, options.program), {
      env: this.kubectlEnv(),
      ...options,
    });
  }

  /** Starts a kubectl that stays, such as `get -w`, at the edge; its stdout is the caller's. */
  startKubectl(args: readonly string[], kubeconfig?: string): LabProcess {
    const command = this.kubectlCommand(args, kubeconfig);
    return this.own(
      startProcess("kubectl", command, { logPath: this.path("kubectl.log"), env: this.kubectlEnv(), stdio: "pipe" }),
    );
  }

  /**
   * Runs kubectl in the cloud as admin, whatever the link does.
   *
   * @returns its stdout.
   * @throws {Error} with its stderr when it fails.
   */
  async inCloud(args: readonly string[], input?: string): Promise<string> {
    const output = await runProcess(
      this.network.within(this.network.cloud, this.cloudKubectl(args)),
      input === undefined ? {} : { input },
    );
    if (output.exitCode !== 0) throw new Error(`Cannot run kubectl ${args.join(" ")} in the cloud: ${output.stderr}`);
    return output.stdout;
  }

  /** Starts a kubectl that stays, in the cloud as admin; its stdout is the caller's. */
  startKubectlInCloud(args: readonly string[]): LabProcess {
    const command = this.network.within(this.network.cloud, this.cloudKubectl(args));
    return this.own(startProcess("kubectl", command, { logPath: this.path("kubectl.log"), stdio: "pipe" }));
  }

  /** Applies a manifest in the cloud. */
  async apply(...objects: readonly object[]): Promise<void> {
    await this.inCloud(
      ["apply", "--server-side", "-f", "-"],
      objects.map((object) => JSON.stringify(object)).join("\n---\n"),
    );
  }

  /** A namespace with the service account that every pod needs, which we make where no controller manager does. */
  async createNamespace(name: string): Promise<void> {
    await this.apply({ apiVersion: "v1", kind: "Namespace", metadata: { name } });
    if (this.options.controllerManager === true) {
      await until(`${name} has its service account`, async () =>
        (await this.inCloud(["get", "serviceaccount", "default", "-n", name, "-o", "name"])).trim(),
      );
    } else
      await this.apply({ apiVersion: "v1", kind: "ServiceAccount", metadata: { name: "default", namespace: name } });
  }

  /**
   * A bearer token of a new service account that may do this everywhere.
   *
   * The rules are written out: roles such as `view` are empty until a controller
   * manager has gathered them.
   */
  async tokenFor(name: string, verbs: readonly string[], resources: readonly string[] = ["*"]): Promise<string> {
    const namespace = "kube-system";
    await this.apply(
      { apiVersion: "v1", kind: "ServiceAccount", metadata: { name, namespace } },
      {
        apiVersion: "rbac.authorization.k8s.io/v1",
        kind: "ClusterRole",
        metadata: { name: `lab-${name}` },
        rules: [
          { apiGroups: ["*"], resources, verbs },
          ...(verbs.includes("*") ? [{ nonResourceURLs: ["*"], verbs }] : []),
        ],
      },
      {
        apiVersion: "rbac.authorization.k8s.io/v1",
        kind: "ClusterRoleBinding",
        metadata: { name: `lab-${name}` },
        roleRef: { apiGroup: "rbac.authorization.k8s.io", kind: "ClusterRole", name: `lab-${name}` },
        subjects: [{ kind: "ServiceAccount", name, namespace }],
      },
    );
    return (await this.inCloud(["create", "token", name, "-n", namespace, "--duration=24h"])).trim();
  }

  /**
   * Starts the API server anew: its watch cache then holds no history.
   *
   * @param more flags of this start alone.
   */
  async restartApiServer(more: readonly string[] = []): Promise<void> {
    // At SIGTERM it would wait for watches that hang behind a cut link.
    await this.apiServer?.stop("SIGKILL");
    await this.startApiServer(more);
  }

  /** Starts a second controller manager that waits for the first one's lease; both must elect a leader. */
  startStandbyControllerManager(): void {
    this.standby = this.startControllers(["--secure-port=10357"]);
  }

  /** Kills the controllers that lead; the standby takes over when their lease has run out. */
  async failOverControllers(): Promise<void> {
    if (this.standby === undefined) throw new Error("No standby was started");
    await this.controllerManager?.stop("SIGKILL");
    [this.controllerManager, this.standby] = [this.standby, undefined];
  }

  /** Ends the controllers at once and starts them anew: they know nothing of what they saw. */
  async restartControllerManager(more: readonly string[] = []): Promise<void> {
    await this.controllerManager?.stop("SIGKILL");
    this.controllerManager = this.startControllers(more);
  }

  /**
   * Sets etcd back to what it was when `backUpEtcd` ran, as an operator would
   * after a loss: the API server and the controllers are ended meanwhile.
   */
  async restoreEtcd(backup: string): Promise<void> {
    await this.controllerManager?.stop("SIGKILL");
    await this.apiServer?.stop("SIGKILL");
    await this.etcd?.stop("SIGKILL");
    const data = join(this.directory, "etcd");
    rmSync(data, { recursive: true, force: true });
    cpSync(backup, data, { recursive: true });
    this.startEtcd();
    await this.startApiServer();
    if (this.options.controllerManager === true) this.startControllerManager();
  }

  /**
   * Copies etcd's data, cold: it stands still for a moment.
   *
   * @returns the copy's folder.
   */
  async backUpEtcd(): Promise<string> {
    const backup = this.path("etcd-backup");
    await this.etcd?.stop("SIGTERM");
    cpSync(join(this.directory, "etcd"), backup, { recursive: true });
    this.startEtcd();
    await until(
      "the API server has its etcd again",
      async () => (await this.inCloud(["get", "--raw=/readyz"])) === "ok",
    );
    return backup;
  }

  /**
   * Stops etcd's process, as a disk that hangs does, until the returned object is
   * disposed of: the API server lives on, and what it asks of storage waits.
   */
  freezeStorage(): Disposable {
    const { etcd } = this;
    if (etcd === undefined) throw new Error("No etcd was started");
    process.kill(etcd.pid, "SIGSTOP");
    return { [Symbol.dispose]: () => void (etcd.isRunning && process.kill(etcd.pid, "SIGCONT")) };
  }

  /**
   * One request to the API server, by admin, in anybody's name.
   *
   * @returns status and body, whatever they are; kubectl would read before it writes.
   */
  async requestInCloud(request: CloudRequest): Promise<CloudAnswer> {
    return (await this.requestsInCloud(request, 1))[0]!;
  }

  /** The same request so many times. @param atOnce as many on their way together. @returns the answers in any order. */
  async requestsInCloud(request: CloudRequest, count: number, atOnce = count): Promise<CloudAnswer[]> {
    const { method, path, body, contentType = "application/merge-patch+json", user, groups = [] } = request;
    const files = [this.pki.ca, this.pki.certificate("admin"), this.pki.key("admin")];
    const given = JSON.stringify({
      count,
      atOnce,
      method,
      url: `${LOOPBACK_URL}${path}`,
      body,
      contentType,
      user,
      groups,
      files,
    });
    // By node:https: fetch would join the groups into one.
    const script = `const { count, atOnce, method, url, body, contentType, user, groups, files } = JSON.parse(process.argv[1]);
      const [ca, cert, key] = files.map((file) => require("node:fs").readFileSync(file));
      const agent = new (require("node:https").Agent)({ keepAlive: true, maxSockets: atOnce });
      const headers = { "Content-Type": contentType, "Impersonate-User": user, "Impersonate-Group": groups };
      const ask = () => new Promise((resolve, reject) => {
        const asked = require("node:https").request(url, { method, headers, ca, cert, key, agent }, (answer) => {
          let text = "";
          answer.on("data", (chunk) => (text += chunk));
          answer.on("end", () => resolve({ status: answer.statusCode, body: text }));
        });
        asked.on("error", reject);
        const text = JSON.stringify(body);
        asked.setHeader("Content-Length", Buffer.byteLength(text));
        asked.end(text);
      });
      process.stdout.write(JSON.stringify(await Promise.all(Array.from({ length: count }, ask))), () => process.exit(0));`;
    const command = this.network.within(this.network.cloud, [process.execPath, "-e", script, given]);
    const output = await runProcess(command, { timeoutMs: 60_000 });
    if (output.exitCode !== 0) throw new Error(`Cannot ask ${path}: ${output.stderr.trim()}`);
    return JSON.parse(output.stdout);
  }

  /** One HTTP exchange in the cloud. @throws {Error} when it is not answered with 2xx. */
  async fetchInCloud(url: string): Promise<string> {
    return await this.fetchWithin(this.network.cloud, url);
  }

  /** Starts a program in the cloud, its output in a log; stdin and stdout are the caller's where asked for. */
  startCloudProgram(name: string, command: readonly string[], stdio: "log" | "pipe" = "log"): LabProcess {
    const entered = this.network.within(this.network.cloud, command);
    return this.own(startProcess(name, entered, { logPath: this.path(`${name}.log`), stdio }));
  }

  /** Compacts etcd up to now: no watch can begin earlier any more. */
  async compact(): Promise<void> {
    const call = async (path: string, body: object) =>
      JSON.parse(await this.fetchWithin(this.network.cloud, `${ETCD_URL}${path}`, JSON.stringify(body)));
    const { header } = await call("/v3/kv/range", { key: btoa("/registry/"), limit: "1" });
    await call("/v3/kv/compaction", { revision: header.revision, physical: true });
  }

  /**
   * Starts the compiled binary at the edge and waits until it says that it is ready.
   *
   * @param options.kubeconfig its upstream; default the node's own.
   * @param options.stateDir given again, it is the same Holdfast restarted.
   */
  async startHoldfast(
    options: {
      readonly kubeconfig?: string;
      readonly stateDir?: string;
      readonly args?: readonly string[];
      readonly env?: Readonly<Record<string, string>>;
    } = {},
  ): Promise<Holdfast> {
    const stateDir = options.stateDir ?? this.path("state");
    mkdirSync(stateDir, { recursive: true, mode: 0o700 });
    const flags = {
      kubeconfig: options.kubeconfig ?? this.nodeKubeconfig,
      "state-dir": stateDir,
      listen: LISTEN,
      "health-listen": HEALTH_LISTEN,
      "client-ca-file": this.pki.ca,
    };
    const command = [
      holdfastPath,
      "run",
      ...Object.entries(flags).flatMap(([name, value]) => [`--${name}`, value]),
      ...(options.args ?? []),
    ];
    const logPath = join(this.directory, `${stateDir.split("/").at(-1)}.log`);
    // The default socket is one per machine, and worlds share the machine.
    const env = { HOLDFAST_ADMIN_SOCKET: join(this.directory, "admin.sock"), ...options.env };
    const started = this.own(
      startProcess("holdfast", this.network.within(this.network.edge, command), { logPath, env }),
    );
    await until(`holdfast is ready; its log is ${logPath}`, async () => {
      if (!started.isRunning) throw new Error(`holdfast has ended: ${started.log.slice(-2000)}`);
      return await this.isHoldfastReady();
    });
    return {
      stateDir,
      process: started,
      stop: async (signal) => await started.stop(signal),
      [Symbol.asyncDispose]: async () => await started.stop(),
    };
  }

  async isHoldfastReady(): Promise<boolean> {
    return (await this.fetchWithin(this.network.edge, `http://${HEALTH_LISTEN}/readyz`)) !== "";
  }

  /**
   * Starts a part of a node, at the edge where nothing else is said, its output in a log.
   *
   * By nsenter: `ip netns exec` mounts a fresh /sys, which hides the cgroups.
   */
  startOnNode(
    name: string,
    command: readonly string[],
    namespace = this.network.edge,
    env: Readonly<Record<string, string>> = {},
  ): LabProcess {
    const entered = ["nsenter", `--net=/run/netns/${namespace}`, ...command];
    return this.own(startProcess(name, entered, { logPath: join(this.directory, `${name}.log`), env }));
  }

  /** Starts any program at the edge, with stdin and stdout for the caller. */
  startAtEdge(name: string, command: readonly string[], env: Readonly<Record<string, string>> = {}): LabProcess {
    return this.own(
      startProcess(name, this.network.within(this.network.edge, command), {
        logPath: this.path(`${name}.log`),
        env,
        stdio: "pipe",
      }),
    );
  }

  /** Runs any short program at the edge. */
  async runAtEdge(
    command: readonly string[],
    env: Readonly<Record<string, string>>,
    timeoutMs: number,
  ): Promise<Output> {
    return await runProcess(this.network.within(this.network.edge, command), { env, timeoutMs });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    // Last in, first out: clients, holdfast, controllers, API server, etcd.
    // Killed: what it wrote goes with it, and the API server would wait for watches behind a cut link.
    for (const started of this.running.toReversed()) await started.stop("SIGKILL");
    await this.network[Symbol.asyncDispose]();
    if (process.env["HOLDFAST_LAB_KEEP"] === undefined) rmSync(this.directory, { recursive: true, force: true });
  }

  private async startControlPlane(): Promise<void> {
    this.startEtcd();
    await this.startApiServer();
    if (this.options.controllerManager === true) this.startControllerManager();
    if (this.options.scheduler === true)
      this.startInCloud(
        "kube-scheduler",
        schedulerArguments(this.kubeconfig(LOOPBACK_URL, this.certificateOf("scheduler"))),
      );
  }

  private startEtcd(): void {
    this.etcd = this.startInCloud("etcd", etcdArguments(join(this.directory, "etcd")));
  }

  private startControllerManager(): void {
    this.controllerManager = this.startControllers();
  }

  private startControllers(more: readonly string[] = []): LabProcess {
    const kubeconfig = this.kubeconfig(LOOPBACK_URL, this.certificateOf("controller-manager"));
    return this.startInCloud("kube-controller-manager", [
      ...controllerManagerArguments(this.pki, kubeconfig),
      ...(this.options.controllerManagerArguments ?? []),
      ...more,
    ]);
  }

  private async startApiServer(more: readonly string[] = []): Promise<void> {
    const flags = [
      ...apiServerArguments(this.pki, this.network.cloudAddress),
      ...this.audit.apiServerArguments,
      ...(this.options.apiServerArguments ?? []),
      ...more,
    ];
    // One of each, the last: of a list given twice the API server takes both.
    const byName = new Map(flags.map((flag) => [flag.split("=")[0]!, flag]));
    this.apiServer = this.startInCloud("kube-apiserver", [...byName.values()]);
    await until(
      `the API server is ready; its log is ${this.apiServer.logPath}`,
      async () => (await this.inCloud(["get", "--raw=/readyz"])) === "ok",
      90_000,
    );
  }

  private startInCloud(name: string, args: readonly string[]): LabProcess {
    const command = this.network.within(this.network.cloud, [programPath(name), ...args]);
    return this.own(startProcess(name, command, { logPath: join(this.directory, `${name}.log`) }));
  }

  private own(started: LabProcess): LabProcess {
    this.running.push(started);
    return started;
  }

  private cloudKubectl(args: readonly string[]): string[] {
    const flags = [`--cache-dir=${this.directory}/kubectl-cloud`, `--kubeconfig=${this.cloudKubeconfig}`];
    return [programPath("kubectl"), ...flags, ...args];
  }

  private kubectlCommand(
    args: readonly string[],
    kubeconfig = this.adminKubeconfig,
    program = programPath("kubectl"),
  ): string[] {
    // `kubectl plugin`-style parsing wants the verb first; these flags may stand anywhere.
    return this.network.within(this.network.edge, [
      program,
      ...args.slice(0, 1),
      `--kubeconfig=${kubeconfig}`,
      `--cache-dir=${this.path("kubectl-cache")}`,
      ...args.slice(1),
    ]);
  }

  private kubectlEnv(): Record<string, string> {
    return { HOME: this.directory, KUBE_EDITOR: join(this.directory, "edit.sh") };
  }

  /** One HTTP exchange inside a namespace, by a small process of its own: a process cannot change namespace. */
  private async fetchWithin(namespace: string, url: string, body?: string): Promise<string> {
    const script = `const r = await fetch(process.argv[1], process.argv[2] === undefined ? {} : { method: "POST", body: process.argv[2] });
      if (!r.ok) throw new Error(r.status + " " + await r.text()); process.stdout.write(await r.text());`;
    const command = this.network.within(namespace, [
      process.execPath,
      "-e",
      script,
      url,
      ...(body === undefined ? [] : [body]),
    ]);
    const output = await runProcess(command, { timeoutMs: 20_000 });
    if (output.exitCode !== 0) throw new Error(`Cannot fetch ${url} in ${namespace}: ${output.stderr.trim()}`);
    return output.stdout;
  }

  private path(name: string): string {
    this.fileCount += 1;
    return join(this.directory, `${this.fileCount}-${name}`);
  }
}

/** Starts a world; see `World.start`. */
export const startWorld = World.start;
