/**
 * A world of one node whose kubelet works on while nobody can be told.
 *
 * Real scopes, overlays, endpoint edits, link and order of the return; a
 * kubelet that lists, watches and writes statuses, kube-proxy on its
 * endpoints, an agent with a label selector. The link is cut and comes back,
 * the cloud goes on meanwhile, Holdfast and kubelet are killed. In the end
 * everybody believes the cloud, and the cloud what kubelet says.
 *
 * Not here: the lease's echo and events, which nobody reads back; black holes,
 * refusals and slow readers, which the other world has.
 */

import type { Scope } from "../../src/cache/scope.ts";
import type { WaitingChanges } from "../../src/node/overlays.ts";
import type { ScopeIdentity } from "../../src/store/contract.ts";
import { ApiServer, keyOf, type Version } from "./api-server.ts";
import { nameOf } from "./checks.ts";
import { Reflector } from "./clients.ts";
import { Random, VirtualClock, settle } from "./clock.ts";
import { soundCode, type Code } from "./code.ts";
import { MemoryDisk, RealDisk, type Disk } from "./disk.ts";
import { Network } from "./network.ts";
import { LocalError, NodeProcess, nextOrder } from "./node-process.ts";
import { LOCAL, OverlayChecks, bodyOf, isTerminal, type Said, type Told } from "./overlay-checks.ts";
import type { Outcome, WorldOptions } from "./world.ts";

const STEP_WEIGHTS = {
  sync: 26,
  annotate: 9,
  cloud: 14,
  wait: 20,
  cut: 8,
  heal: 9,
  flap: 3,
  compact: 3,
  endWatches: 2,
  bookmarks: 3,
  crash: 4,
  restart: 2,
  reboot: 2,
  read: 8,
  restartClient: 3,
} as const;

const KUBELET = "certificate:n1";
const AGENT = "serviceaccount:kube-system:agent:1";
const NODE = "n1";
/** By then a return is complete: 5 s for the node, 3 s for its copies, 3 s for the others. */
const RETURN_MS = 20_000;
/** A status that a reboot would not miss is on disk after this. */
const SAVED_AFTER_MS = { pods: 30_000, nodes: 600_000 };

/** Runs one seed of this world. */
export function runOverlaySeed(seed: number, options: WorldOptions = {}): Outcome {
  const world = new OverlayWorld(seed, options);
  try {
    return world.run();
  } finally {
    world.dispose();
  }
}

class OverlayWorld {
  readonly #random: Random;
  readonly #clock = new VirtualClock();
  readonly #server = new ApiServer();
  readonly #checks: OverlayChecks;
  readonly #network: Network;
  readonly #disk: Disk;
  readonly #code: Code;
  readonly #clients: Reflector[] = [];
  readonly #pods: Reflector;
  readonly #nodes: Reflector;
  readonly #counts = new Map<string, number>();
  readonly #trace: string[] = [];
  /** What kubelet knows of its pods and its node, by UID. */
  readonly #own = new Map<string, Said>();
  readonly #saidAtMs = new Map<string, number>();
  readonly #inFlight = new Set<string>();
  /** What the agent said last of a pod while cut, of which row, and of which it first did so without having it sent. */
  readonly #agentSaid = new Map<string, { readonly note: string; readonly row: number; readonly since: number }>();
  /** When somebody else last changed a note, by UID. */
  readonly #foreignNoteAt = new Map<string, number>();
  readonly #sentNotes = new Set<string>();
  /** The agent was not heard for an hour of the return: what it said may be dropped. */
  #isAgentGivenUp = false;
  #process!: NodeProcess;
  #onlineSinceMs = Number.POSITIVE_INFINITY;
  /** The cloud's revision when the link came back. */
  #returnRevision = 0;
  /** Copies that somebody watched when the link came back. */
  #followedAtReturn = new Set<Scope>();
  #lastWriteMs = 0;
  #steps = 0;
  #mark = 0;
  #ips = 0;

  constructor(
    private readonly seed: number,
    private readonly options: WorldOptions,
  ) {
    const random = new Random(seed ^ 0x0ead);
    this.#random = random;
    this.#code = options.code ?? soundCode;
    const every = options.realStoreEvery ?? 10;
    this.#disk = options.disk?.() ?? (every > 0 && seed % every === every - 1 ? new RealDisk() : new MemoryDisk());
    this.#checks = new OverlayChecks(this.#server, this.#clock);
    // While Holdfast has yet to notice that the link is back, a request that went up before may be answered.
    this.#checks.isCut = () => !this.#process.link.isOnline() && this.#network.mode !== "up";
    this.#checks.isReturned = () =>
      this.#process.link.isOnline() && this.#clock.monotonicMs() - this.#onlineSinceMs > RETURN_MS;
    const { UnreachableError } = this.#code;
    this.#network = new Network(
      this.#clock,
      new Random(seed ^ 0x5eed),
      this.#server,
      (message) => new UnreachableError(message),
      (...head) => this.#checks.head(...head),
    );
    this.#network.latencyMs = random.pick([1, 5, 40]);
    this.#pods = this.#reflector(1, "kubelet-pods", KUBELET, "pods", { fieldSelector: `spec.nodeName=${NODE}` });
    this.#nodes = this.#reflector(2, "kubelet-node", KUBELET, "nodes", { fieldSelector: `metadata.name=${NODE}` });
    this.#reflector(3, "kube-proxy", "token:proxy", "endpointslices", {});
    this.#reflector(4, "agent", "token:agent", "pods", { labelSelector: "app=x" });
  }

  run(): Outcome {
    this.#server.write("nodes", "", NODE, { app: "x", node: NODE, extra: statusText(undefined, 0) });
    for (let i = this.#random.between(2, 8); i > 0; i--) this.#cloud();
    this.#boot();
    for (const client of this.#clients) client.start();
    settle();
    this.#wait(this.#random.pick([100, 5_000, 30_000]));
    const steps = this.#random.between(30, 90);
    while (this.#steps < steps && this.#isGoingOn()) {
      this.#steps++;
      const step = this.#random.weighted(STEP_WEIGHTS);
      this.#say(() => `step ${this.#steps}: ${step}`);
      this.#count(`node: ${step}`);
      this.#do(step);
      settle();
      this.#checks.rows(this.#process.store, "after a step");
    }
    if (this.#isGoingOn()) this.#clear();
    const { violation } = this.#checks;
    return { seed: this.seed, steps: this.#steps, violation, trace: this.#trace, counts: this.#counts };
  }

  dispose(): void {
    this.#process.crash();
    this.#disk.dispose();
  }

  #isGoingOn(): boolean {
    return this.#checks.violation === undefined;
  }

  #reflector(
    n: number,
    name: string,
    principal: string,
    resource: string,
    selectors: { readonly fieldSelector?: string; readonly labelSelector?: string },
  ): Reflector {
    const group = resource === "endpointslices" ? "discovery.k8s.io" : "";
    const none = { namespace: "", fieldSelector: "", labelSelector: "", representation: "json" };
    const identity: ScopeIdentity = { principal, group, version: "v1", resource, ...none, ...selectors };
    const parts = {
      clock: this.#clock,
      random: new Random(this.seed * 31 + n),
      checks: this.#checks,
      process: () => this.#process,
      trace: (text: () => string) => this.#say(text),
      count: (what: string) => this.#count(what),
    };
    const client = new Reflector(parts, { name, identity, isStreaming: this.#random.chance(0.6), isExact: false });
    this.#clients.push(client);
    return client;
  }

  #boot(): void {
    this.#onlineSinceMs = Number.POSITIVE_INFINITY;
    const process = new NodeProcess({
      code: this.#code,
      seams: this.options.seams ?? {},
      clock: this.#clock,
      network: this.#network,
      disk: this.#disk,
      random: () => this.#random.next(),
      limits: {
        scopeMaxItems: 1_000,
        scopeMaxBytes: 1e6,
        ringMaxEvents: 100,
        ringMaxBytes: 1e6,
        lingerMs: 300_000,
        bookmarkIntervalMs: 45_000,
      },
      node: { principal: KUBELET, name: NODE },
      agentWrites: (group, body) => this.#agentApplied(group, body),
      onAgentDropped: (reason, { namespace, name }) => {
        this.#count(`agent: dropped, ${reason}`);
        if (reason === "its writer was not heard again") this.#isAgentGivenUp = true;
        // Its own note of just before the cut, which no copy had: here nobody keeps own writes.
        const known = this.#find("pods", namespace, name);
        if (known?.note.startsWith("agent-") === true) this.#agentSaid.delete(known.uid);
      },
      onScopeList: (identity, held) => this.#checks.scopeLists(identity, held),
      onInternalError: (error) => this.#checks.fail("answers", `internal error: ${String(error)}`),
      count: (what) => this.#count(what),
      trace: (text) => this.#say(text),
    });
    this.#process = process;
    process.link.onChange((isOnline) => {
      if (this.#process !== process) return;
      this.#onlineSinceMs = isOnline ? this.#clock.monotonicMs() : Number.POSITIVE_INFINITY;
      if (!isOnline) return;
      this.#returnRevision = this.#server.revision;
      this.#followedAtReturn = new Set([...process.scopes.all()].filter(({ isFollowing }) => isFollowing));
      for (const told of this.#checks.records.values()) told.standing = undefined;
      for (const noted of this.#checks.notes.values()) noted.standing = undefined;
      // Kubelet writes at any moment, also in the first of the return.
      if (this.#random.chance(0.6)) this.#sync();
    });
    settle();
    this.#checks.rows(process.store, "after a start");
  }

  #do(step: keyof typeof STEP_WEIGHTS): void {
    const random = this.#random;
    switch (step) {
      case "sync":
        for (let i = random.between(1, 3); i > 0; i--) this.#sync();
        return;
      case "annotate":
        return this.#annotate();
      case "cloud":
        for (let i = random.between(1, 4); i > 0; i--) this.#cloud();
        return;
      case "wait":
        return this.#wait(random.pick([1, 100, 1_000, 5_000, 40_000, 700_000]) * (0.5 + random.next()));
      case "cut":
        this.#network.cut();
        return this.#wait(random.pick([10, 5_000, 60_000]));
      case "heal":
        this.#network.heal();
        return this.#wait(random.pick([0, 10, 200, 5_000, 60_000]));
      case "flap":
        for (let i = random.between(1, 4); i > 0; i--) {
          this.#network.heal();
          this.#wait(random.pick([5, 50, 300, 2_000]));
          this.#network.cut();
          this.#wait(random.pick([5, 50, 3_000]));
          if (random.chance(0.3)) this.#cloud();
        }
        return;
      case "compact":
        return this.#server.compact(this.#server.revision);
      case "endWatches":
        return this.#network.endWatches();
      case "bookmarks":
        return this.#network.bookmarkAll();
      case "crash":
        return this.#crash();
      case "restart":
        return this.#restart();
      case "reboot":
        // Every pod that has not finished comes back with another address.
        for (const [uid, said] of this.#own)
          if (!isTerminal(said.phase)) this.#own.set(uid, { ...said, ip: this.#newIp(), isReady: false });
        for (const client of this.#clients) client.restart();
        return this.#crash();
      case "read":
        return this.#read();
      case "restartClient":
        return random.pick(this.#clients).restart();
    }
  }

  // ---- the cloud ----

  #cloud(): void {
    const random = this.#random;
    const namespace = random.pick(["shop", "ops"]);
    const name = random.pick(["a", "b", "c"]);
    const known = this.#find("pods", namespace, name);
    const fields = { app: random.pick(["x", "y"]), node: random.chance(0.8) ? NODE : "n2" };
    const fresh = { ...fields, extra: statusText(undefined, 0) };
    if (known === undefined) this.#server.write("pods", namespace, name, fresh);
    else if (random.chance(0.15)) {
      const note = `cloud-${this.#server.revision + 1}`;
      this.#server.write("pods", namespace, name, fieldsOf(known, note));
      this.#foreignNoteAt.set(known.uid, this.#server.revision);
    } else if (random.chance(0.6)) this.#changeCondition(known);
    else {
      this.#server.write("pods", namespace, name, undefined);
      if (random.chance(0.5)) this.#server.write("pods", namespace, name, fresh);
    }
    if (random.chance(0.1)) this.#changeCondition(this.#find("nodes", "", NODE)!);
    this.#controlEndpoints();
    this.#say(() => `the cloud changed pods ${namespace}/${name}, now at ${this.#server.revision}`);
  }

  /** A controller's own condition, or a label, of an object that kubelet writes too. */
  #changeCondition({ resource, namespace, name, app, node, extra }: Version): void {
    const status = JSON.parse(`{${extra}}`).status as Status;
    const next = { ...status, conditions: conditionsOf(readyOf(status), this.#server.revision + 1) };
    const label = resource === "pods" && this.#random.chance(0.3) ? this.#random.pick(["x", "y"]) : app;
    this.#server.write(resource, namespace, name, { app: label, node, extra: `"status":${JSON.stringify(next)}` });
  }

  #controlEndpoints(): void {
    const endpoints = this.#server.objects("pods").map((pod) => {
      const status = JSON.parse(bodyOf(pod)) as Status;
      return {
        addresses: [status.podIP ?? "10.0.0.0"],
        conditions: { ready: readyOf(status) === "True" && !isTerminal(status.phase) },
        targetRef: { kind: "Pod", namespace: pod.namespace, name: pod.name, uid: pod.uid },
      };
    });
    const extra = `"endpoints":${JSON.stringify(endpoints)},"addressType":"IPv4"`;
    if (this.#find("endpointslices", "shop", "web")?.extra === extra) return;
    this.#server.write("endpointslices", "shop", "web", { app: "x", node: "", extra });
  }

  #find(resource: string, namespace: string, name: string): Version | undefined {
    return this.#server.objects(resource).find((other) => keyOf(other) === keyOf({ namespace, name }));
  }

  // ---- the agent ----

  /** A plugin wires a pod again and writes it down. */
  #annotate(): void {
    const seen = [...this.#pods.belief.values()];
    if (seen.length === 0) return;
    const { namespace, name, uid } = this.#random.pick(seen);
    const note = `agent-${++this.#mark}`;
    const process = this.#process;
    const target = { resource: "pods", namespace, name, uid } as const;
    // The cloud may have gone on before the answer is here.
    let revision = 0;
    const apply = () => {
      const known = this.#find("pods", namespace, name);
      if (known?.uid !== uid) return { status: 409, text: '{"kind":"Status","code":409}' };
      this.#server.write("pods", namespace, name, fieldsOf(known, note));
      ({ revision } = this.#server);
      return { status: 200, text: this.#server.get(this.#pods.identity, namespace, name)! };
    };
    const noted = this.#checks.notes.get(uid) ?? { said: new Set(), standing: undefined, standingSince: 0 };
    this.#checks.notes.set(uid, noted);
    noted.said.add(note);
    process.remember(AGENT);
    process.annotate(AGENT, this.#pods.identity, target, note, apply).then(
      (here) => {
        this.#count(here === undefined ? "agent: forwarded" : "agent: overlaid");
        this.#say(() => `the agent noted ${note} of ${namespace}/${name} ${here === undefined ? "up" : "here"}`);
        if (here === undefined) return void this.#agentSaid.set(uid, { note, row: revision, since: revision });
        const { object, row } = here;
        // What it said before and has not gone up yet was of an older row: who changed the note since is not overruled.
        const before = this.#agentSaid.get(uid);
        const isWaiting = before !== undefined && !this.#sentNotes.has(before.note);
        this.#agentSaid.set(uid, { note, row, since: isWaiting ? Math.min(before.since, row) : row });
        if (object.note !== note)
          this.#checks.fail("P2", `the agent noted ${note} of ${uid} and was shown ${object.note}`);
        if (process.link.isOnline()) return;
        noted.standing = note;
        noted.standingSince = nextOrder();
      },
      (error: unknown) => {
        // Whether it was carried out is not known.
        this.#agentSaid.delete(uid);
        this.#excused(error);
      },
    );
  }

  /** What the agent wrote while cut, as it reaches the API server. */
  #agentApplied({ namespace, name, uid, changes }: WaitingChanges, body: string) {
    const conflict = { status: 409, text: '{"kind":"Status","code":409}' };
    const { metadata } = JSON.parse(body) as {
      readonly metadata: { readonly uid: string; readonly resourceVersion: string };
    };
    const known = this.#find("pods", namespace, name);
    if (known === undefined) return { status: 404, text: '{"kind":"Status","code":404}' };
    if (known.uid !== metadata.uid || String(known.revision) !== metadata.resourceVersion) return conflict;
    const note = String(changes.find(({ key }) => key === "note")!.now);
    if (this.#sentNotes.has(note)) this.#checks.fail("answers", `the agent's note ${note} went up twice`);
    this.#sentNotes.add(note);
    const said = this.#agentSaid.get(uid);
    const isForeign = said !== undefined && (this.#foreignNoteAt.get(uid) ?? 0) > said.row;
    // Of its own notes the last one stands, also where it went up by another way.
    const isOlder = known.note.startsWith("agent-") && Number(known.note.slice(6)) > Number(note.slice(6));
    if (isOlder || (isForeign && known.note.startsWith("cloud-")))
      this.#checks.fail("P2", `the agent's note ${note} went up over ${known.note}`);
    this.#server.write("pods", namespace, name, fieldsOf(known, note));
    return { status: 200, text: this.#server.get(this.#pods.identity, namespace, name)! };
  }

  // ---- kubelet ----

  /** Kubelet looks at one of its objects and writes its status. */
  #sync(): void {
    const random = this.#random;
    const client = random.chance(0.75) ? this.#pods : this.#nodes;
    const seen = [...client.belief.values()];
    if (seen.length === 0) return;
    const { namespace, name, uid } = random.pick(seen);
    this.#patch(client, namespace, name, uid, this.#live(uid, client === this.#nodes));
  }

  /** What happens in the machine. */
  #live(uid: string, isNode: boolean): Said {
    const random = this.#random;
    const before = this.#own.get(uid);
    const mark = ++this.#mark;
    if (before === undefined) return { phase: "Running", ip: this.#newIp(), isReady: random.chance(0.5), mark };
    if (isTerminal(before.phase)) return { ...before, mark };
    if (!isNode && random.chance(0.1))
      return { ...before, phase: random.pick(["Succeeded", "Failed"]), isReady: false, mark };
    return { ...before, isReady: random.chance(0.3) ? !before.isReady : before.isReady, mark };
  }

  #patch(client: Reflector, namespace: string, name: string, uid: string, said: Said): void {
    const { identity } = client;
    const resource = identity.resource as "pods" | "nodes";
    const process = this.#process;
    // Kubelet writes an object's statuses one after the other.
    if (this.#inFlight.has(uid)) return;
    this.#inFlight.add(uid);
    this.#own.set(uid, said);
    const { phase, ip, isReady, mark } = said;
    const ready = isReady ? "True" : "False";
    const patch = {
      metadata: { uid },
      status: { phase, podIP: ip, mark, conditions: [{ type: "Ready", status: ready }] },
    };
    const records = this.#checks.records;
    const told: Told = records.get(uid) ?? {
      said: new Map(),
      standing: undefined,
      standingSince: 0,
      remembered: undefined,
      isInWords: false,
      isFinished: false,
    };
    records.set(uid, told);
    told.said.set(mark, said);
    const before = told.standing ?? told.remembered ?? keptStatus(process, identity, namespace, name);
    const apply = () => this.#applied(resource, namespace, name, uid, said);
    process
      .patchStatus(identity, { resource, namespace, name }, JSON.stringify(patch), apply)
      .then(
        (here) => {
          this.#count(here === undefined ? "status: forwarded" : "status: overlaid");
          this.#say(
            () =>
              `kubelet wrote mark ${mark} of ${resource} ${namespace}/${name} ${here === undefined ? "up" : "here"}`,
          );
          if (here === undefined) return;
          if (here.uid !== uid) this.#checks.fail("P1", `a status of ${uid} was laid over ${here.uid}`);
          if (process.link.isOnline()) return;
          told.standing = said;
          told.isInWords = false;
          told.standingSince = nextOrder();
          this.#saidAtMs.set(uid, this.#clock.monotonicMs());
          this.#lastWriteMs = this.#clock.monotonicMs();
          const isNews = before?.phase !== phase || before.ip !== ip || before.isReady !== isReady;
          if (resource === "pods" && isTerminal(phase) && isNews) {
            told.isFinished = true;
            told.remembered = said;
          }
          this.#checks.item(identity, here, "the answer to a status", true);
        },
        (error: unknown) => this.#excused(error),
      )
      .finally(() => this.#inFlight.delete(uid));
  }

  /** The write as it reaches the API server. */
  #applied(resource: "pods" | "nodes", namespace: string, name: string, uid: string, said: Said) {
    const known = this.#find(resource, namespace, name);
    if (known === undefined) return { status: 404, text: '{"kind":"Status","code":404}' };
    if (known.uid !== uid) return { status: 409, text: '{"kind":"Status","code":409}' };
    for (const { identity } of [this.#pods, this.#nodes]) {
      const scope = this.#process.scopes.find(identity);
      const listed = scope?.listed;
      // Kubelet has not come back since Holdfast was killed: nothing can be handed down to it.
      if (
        scope === undefined ||
        listed === undefined ||
        !this.#followedAtReturn.has(scope) ||
        this.#network.mode !== "up"
      )
        continue;
      const missed = this.#server
        .eventsAfter(identity, Number(listed.resourceVersion))
        .find(({ version }) => version.revision <= this.#returnRevision);
      if (missed !== undefined && Number(listed.resourceVersion) >= this.#server.windowFloor)
        this.#checks.fail(
          "P2",
          `kubelet's write went up before ${nameOf(identity)} at ${missed.version.revision} came down`,
        );
    }
    const status = JSON.parse(bodyOf(known)) as Status;
    const cloud = status.conditions.find(({ type }) => type === "Cloud")!.message!;
    const { app, node } = known;
    this.#server.write(resource, namespace, name, { app, node, extra: statusText(said, Number(cloud)) });
    this.#controlEndpoints();
    return { status: 200, text: this.#server.get({ ...this.#pods.identity, resource }, namespace, name)! };
  }

  #newIp(): string {
    return `10.1.${Math.floor(++this.#ips / 250)}.${this.#ips % 250}`;
  }

  /** One GET or LIST, as kubelet or an operator at the machine makes them. */
  #read(): void {
    const client = this.#random.pick(this.#clients);
    const { identity } = client;
    if (this.#random.chance(0.5)) {
      const asked = this.#random.pick(["", "0"]);
      this.#process.list(identity, asked).then(
        (list) => {
          this.#checks.listed(identity, list, "", "a read list");
          // Endpoints are gathered for a moment.
          const isQuiet = this.#clock.monotonicMs() - this.#lastWriteMs > 100;
          if (identity.resource === "endpointslices" && this.#checks.isCut() && isQuiet)
            for (const item of list.items) this.#checks.endpoints(identity, item);
        },
        (error: unknown) => this.#excused(error),
      );
      return;
    }
    const seen = [...client.belief.values()];
    if (seen.length === 0) return;
    const { namespace, name } = this.#random.pick(seen);
    this.#process.get(identity, namespace, name, this.#random.pick(["", "0"])).then(
      ({ object, from }) => {
        if (object !== undefined && from !== undefined) this.#checks.got(from, object);
      },
      (error: unknown) => this.#excused(error),
    );
  }

  #excused(error: unknown): void {
    if (!(error instanceof LocalError)) this.#checks.fail("answers", `internal error: ${String(error)}`);
  }

  // ---- the machine ----

  #crash(): void {
    this.#process.crash();
    this.#network.breakAll();
    settle();
    for (const client of this.#clients) client.reset();
    this.#disk.crash();
    const nowMs = this.#clock.monotonicMs();
    for (const [uid, told] of this.#checks.records) {
      if (told.standing === undefined) continue;
      const isPod = [...this.#pods.belief.values()].some((pod) => pod.uid === uid);
      const withinMs = isPod ? SAVED_AFTER_MS.pods : SAVED_AFTER_MS.nodes;
      if (nowMs - (this.#saidAtMs.get(uid) ?? nowMs) > withinMs) continue;
      if (isPod) told.isInWords = true;
      else told.standing = undefined;
    }
    settle();
    this.#lastWriteMs = nowMs;
    this.#boot();
  }

  #restart(): void {
    this.#process.stop();
    this.#network.breakAll();
    settle();
    for (const client of this.#clients) client.reset();
    this.#lastWriteMs = this.#clock.monotonicMs();
    this.#boot();
  }

  #wait(ms: number): void {
    this.#say(() => `${Math.round(ms)} ms pass`);
    if (!this.#clock.pass(ms)) this.#checks.fail("answers", "timers that never rest");
  }

  /** The link is well: everybody comes to know the cloud, and the cloud what kubelet says. */
  #clear(): void {
    this.#say(() => "the link is well again");
    this.#process.remember(AGENT);
    this.#network.heal();
    this.#wait(300_000);
    for (let round = 0; round < 3 && this.#isGoingOn(); round++) {
      for (const client of [this.#pods, this.#nodes])
        for (const { namespace, name, uid, body } of [...client.belief.values()]) {
          const said = this.#own.get(uid);
          const isNews = said !== undefined && (JSON.parse(body) as Status).mark !== said.mark;
          if (isNews) this.#patch(client, namespace, name, uid, said);
        }
      this.#wait(60_000);
    }
    this.#network.bookmarkAll();
    this.#wait(100_000);
    for (const { belief, identity, name } of this.#clients) {
      this.#checks.complete("P2", identity, belief, this.#server.revision, `in the end ${name}'s view`);
      for (const item of belief.values())
        if (item.revision >= LOCAL) this.#checks.fail("P2", `in the end ${name} holds an edited ${keyOf(item)}`);
    }
    for (const pod of this.#server.select(this.#pods.identity, this.#server.revision).values()) {
      const said = this.#own.get(pod.uid);
      if (said !== undefined && (JSON.parse(bodyOf(pod)) as Status).mark !== said.mark)
        this.#checks.fail("answers", `in the end the cloud does not know what kubelet says of ${keyOf(pod)}`);
      const noted = this.#agentSaid.get(pod.uid);
      const isOverruled = noted === undefined || (this.#foreignNoteAt.get(pod.uid) ?? 0) > noted.since;
      if (!isOverruled && !this.#isAgentGivenUp && pod.note !== noted.note)
        this.#checks.fail(
          "answers",
          `in the end ${keyOf(pod)} has the note "${pod.note}", the agent wrote "${noted.note}"`,
        );
    }
  }

  #count(what: string): void {
    this.#counts.set(what, (this.#counts.get(what) ?? 0) + 1);
  }

  #say(text: () => string): void {
    if (this.options.isTraced !== true) return;
    this.#trace.push(`${(this.#clock.monotonicMs() / 1_000 - 1_000).toFixed(3)} ${text()}`);
  }
}

interface Status {
  readonly phase?: string;
  readonly podIP?: string;
  readonly mark?: number;
  readonly conditions: readonly { readonly type: string; readonly status: string; readonly message?: string }[];
}

/** What a write of the note alone leaves of an object. */
function fieldsOf({ app, node, extra }: Version, note: string) {
  return { app, node, extra, note };
}

/** A status as the API server keeps it: kubelet's part, and a condition of the cloud's own. */
function statusText(said: Said | undefined, cloud: number): string {
  const conditions = conditionsOf(said === undefined ? "False" : said.isReady ? "True" : "False", cloud);
  const own = said === undefined ? { phase: "Pending" } : { phase: said.phase, podIP: said.ip, mark: said.mark };
  return `"status":${JSON.stringify({ ...own, conditions })}`;
}

/** What a reader is shown already; a write that repeats it may be lost with the process. */
function keptStatus(
  process: NodeProcess,
  identity: ScopeIdentity,
  namespace: string,
  name: string,
): Pick<Said, "phase" | "ip" | "isReady"> | undefined {
  const item = process.scopes.find(identity)?.item(namespace, name);
  if (item === undefined) return undefined;
  const { status } = JSON.parse(Buffer.from(item.bytes).toString("utf8")) as { readonly status: Status };
  return { phase: status.phase ?? "", ip: status.podIP ?? "", isReady: readyOf(status) === "True" };
}

function conditionsOf(ready: string, cloud: number) {
  return [
    { type: "Ready", status: ready },
    { type: "Cloud", status: "True", message: String(cloud) },
  ];
}

function readyOf({ conditions }: Status): string {
  return conditions.find(({ type }) => type === "Ready")?.status ?? "False";
}
