/**
 * A world of one node: a seed decides its clients, its weather and its luck.
 *
 * Every step does one thing (a write, a cut, a crash, a client that hangs up,
 * an hour that passes), lets all that follows from it happen, and holds what
 * came of it against the promises. After the last step the weather clears, and
 * every client must come to believe what is true.
 */

import type { Log } from "../../src/base/log.ts";
import { identityText, type ScopeIdentity } from "../../src/store/contract.ts";
import { ApiServer, keyOf } from "./api-server.ts";
import { Checks, nameOf, type Violation } from "./checks.ts";
import { Reflector } from "./clients.ts";
import { Random, VirtualClock, settle } from "./clock.ts";
import { soundCode, type Code } from "./code.ts";
import { MemoryDisk, RealDisk, type Disk } from "./disk.ts";
import { Network } from "./network.ts";
import { LocalError, NodeProcess, readObject, type ProcessFace, type Seams } from "./node-process.ts";
import { WayChecks } from "./way-checks.ts";
import { WayProcess } from "./way-process.ts";
import { identityOf, Wire, type Asked } from "./way-wire.ts";

/** What is not the seed's to decide. */
export interface WorldOptions {
  readonly code?: Code;
  readonly seams?: Seams;
  readonly disk?: () => Disk;
  /** Every this many seeds the real store is used. Default 10; 0 for never. */
  readonly realStoreEvery?: number;
  /** Keeps what happened, for a seed that is looked at. Default false. */
  readonly isTraced?: boolean;
  /** Walks the real way of a request (`way-process.ts`) instead of the scopes alone. Default false. */
  readonly isWay?: boolean;
  readonly log?: Log;
}

/** How a seed ended. */
export interface Outcome {
  readonly seed: number;
  readonly steps: number;
  readonly violation: Violation | undefined;
  /** Empty unless it was asked for. */
  readonly trace: readonly string[];
  /** How often what happened: a simulation in which nothing happens finds nothing. */
  readonly counts: ReadonlyMap<string, number>;
}

const STEP_WEIGHTS = {
  write: 30,
  wait: 22,
  cut: 4,
  hole: 4,
  heal: 9,
  stall: 2,
  compact: 5,
  endWatches: 3,
  bookmarks: 4,
  mood: 4,
  deny: 2,
  allow: 3,
  crash: 2,
  restart: 1,
  read: 6,
  hangUp: 5,
  stick: 3,
  drain: 5,
  kubectl: 4,
  restartClient: 4,
  absence: 4,
  lag: 4,
  restore: 0,
  jump: 1,
  // Only on the real way.
  foreign: 0,
  freeze: 0,
  thaw: 0,
  blink: 0,
  stranger: 0,
  ownWrite: 0,
  memory: 0,
} as const;

/** How often, where the real way is walked. */
const WAY_WEIGHTS = { foreign: 4, freeze: 3, thaw: 6, blink: 3, stranger: 4, ownWrite: 4, memory: 6 } as const;

type Step = keyof typeof STEP_WEIGHTS;

const RESOURCES = ["pods", "configmaps", "nodes"] as const;
const PRINCIPALS = ["token:agent", "token:dns"] as const;
/** An answer that a client waits for longer than this never comes. */
const PATIENCE_MS = 300_000;
const CLEARING_MS = 900_000;
/** A refusal that is over is looked at again within this much time online. */
const REFUSAL_MEMORY_MS = 3_600_000;

/** Runs one seed. */
export function runSeed(seed: number, options: WorldOptions = {}): Outcome {
  const world = new World(seed, options);
  try {
    return world.run();
  } finally {
    world.dispose();
  }
}

class World {
  readonly #random: Random;
  readonly #clock = new VirtualClock();
  readonly #server = new ApiServer();
  readonly #checks: Checks;
  readonly #network: Network;
  readonly #disk: Disk;
  readonly #code: Code;
  readonly #clients: Reflector[] = [];
  readonly #counts = new Map<string, number>();
  readonly #trace: string[] = [];
  readonly #limits;
  readonly #weights: Record<Step, number>;
  readonly #wire: Wire;
  /** When each principal was last refused something, by what was refused. */
  readonly #refusedAtMs = new Map<string, number>();
  #process: ProcessFace | undefined;
  #steps = 0;

  constructor(
    private readonly seed: number,
    private readonly options: WorldOptions,
  ) {
    const random = new Random(seed);
    this.#random = random;
    this.#code = options.code ?? soundCode;
    const every = options.realStoreEvery ?? 10;
    const isReal = every > 0 && seed % every === every - 1;
    this.#disk = options.disk?.() ?? (isReal ? new RealDisk() : new MemoryDisk());
    this.#checks =
      options.isWay === true ? new WayChecks(this.#server, this.#clock) : new Checks(this.#server, this.#clock);
    const { UnreachableError } = this.#code;
    this.#network = new Network(
      this.#clock,
      new Random(seed ^ 0x5eed),
      this.#server,
      (message) => new UnreachableError(message),
      (...head) => this.#checks.head(...head),
    );
    this.#network.latencyMs = random.pick([1, 5, 40, 300]);
    this.#network.pageItems = random.pick([2, 3, 500]);
    this.#wire = new Wire(
      this.#network,
      this.#server,
      [...PRINCIPALS, "token:own"],
      (identity) => this.#process?.scopes.find(identity)?.listed?.resourceVersion,
      (identity, held) => this.#checks.scopeLists(identity, held),
      this.#checks,
      (asked) => this.#apply(asked),
    );
    this.#limits = {
      scopeMaxItems: 1_000,
      scopeMaxBytes: 1e6,
      ringMaxEvents: random.pick([4, 10, 100]),
      ringMaxBytes: 1e6,
      lingerMs: random.pick([2_000, 60_000, 300_000]),
      bookmarkIntervalMs: 45_000,
    };
    this.#weights = { ...STEP_WEIGHTS, ...(options.isWay === true ? WAY_WEIGHTS : {}) };
    // Some worlds have no bad days of one kind or another: what remains goes deeper.
    for (const step of ["crash", "deny", "stall", "mood", "stick", "hole", "compact"] as const)
      if (random.chance(0.3)) this.#weights[step] = 0;
    if (random.chance(0.1)) this.#weights.restore = 2;
  }

  run(): Outcome {
    this.#populate();
    this.#boot();
    this.#addClients();
    const steps = this.#random.between(30, 120);
    while (this.#steps < steps && this.#isGoingOn()) {
      this.#steps++;
      const step = this.#random.weighted(this.#weights);
      this.#say(() => `step ${this.#steps}: ${step}`);
      this.#count(step);
      this.#do(step);
      settle();
      this.#observe();
    }
    if (this.#isGoingOn()) this.#clear();
    return {
      seed: this.seed,
      steps: this.#steps,
      violation: this.#checks.violation,
      trace: this.#trace,
      counts: this.#counts,
    };
  }

  dispose(): void {
    this.#process?.crash();
    this.#disk.dispose();
  }

  #isGoingOn(): boolean {
    return this.#checks.violation === undefined;
  }

  /** A client's PUT, at the API server. */
  #apply(asked: Asked): { readonly status: number; readonly text: string } {
    const { collection, name } = identityOf(asked)!;
    const { resource, namespace } = collection;
    const fields = JSON.parse(asked.body) as { readonly app: string; readonly node: string };
    const known = this.#server.objects(resource).find((other) => keyOf(other) === keyOf({ namespace, name }));
    if (known === undefined)
      return { status: 404, text: '{"kind":"Status","apiVersion":"v1","reason":"NotFound","code":404}' };
    if (known.app !== fields.app || known.node !== fields.node) this.#server.write(resource, namespace, name, fields);
    return { status: 200, text: this.#server.get(collection, namespace, name)! };
  }

  #populate(): void {
    for (let i = this.#random.between(0, 8); i > 0; i--) this.#write();
  }

  #addClients(): void {
    const { random } = { random: this.#random };
    for (let i = random.between(2, 5); i > 0; i--) {
      const client = new Reflector(
        {
          clock: this.#clock,
          random: new Random(this.seed * 31 + i),
          checks: this.#checks,
          process: () => this.#process,
          trace: (text) => this.#say(text),
          count: (what) => this.#count(what),
        },
        {
          name: `client-${i}`,
          identity: this.#identity(),
          isStreaming: random.chance(0.5),
          isExact: random.chance(0.4),
        },
      );
      this.#clients.push(client);
      client.start();
      settle();
    }
  }

  #identity(): ScopeIdentity {
    const random = this.#random;
    const resource = random.pick(RESOURCES);
    const isNamespaced = resource !== "nodes" && random.chance(0.5);
    return {
      principal: random.pick(PRINCIPALS),
      group: "",
      version: "v1",
      resource,
      namespace: isNamespaced ? random.pick(["shop", "ops"]) : "",
      fieldSelector: random.chance(0.25) ? random.pick(["spec.nodeName=n1", "metadata.name=a"]) : "",
      labelSelector: random.chance(0.25) ? random.pick(["app=x", "app=y"]) : "",
      representation: "json",
    };
  }

  #boot(): void {
    const common = {
      code: this.#code,
      clock: this.#clock,
      disk: this.#disk,
      random: () => this.#random.next(),
      limits: { ...this.#limits, storeMaxBytes: 1e9 },
      onInternalError: (error: unknown) => {
        if (error instanceof Error) this.#say(() => error.stack ?? "");
        this.#checks.fail("answers", `internal error: ${String(error)}`);
      },
      count: (what: string) => this.#count(what),
      trace: (text: () => string) => this.#say(text),
    };
    this.#process =
      this.options.isWay === true
        ? new WayProcess({ ...common, wire: this.#wire })
        : new NodeProcess({
            ...common,
            seams: this.options.seams ?? {},
            network: this.#network,
            onScopeList: (identity, held) => this.#checks.scopeLists(identity, held),
          });
    settle();
    this.#checks.rows(this.#process!.store, "after a start");
  }

  #do(step: Step): void {
    const random = this.#random;
    const network = this.#network;
    switch (step) {
      case "write":
        for (let i = random.between(1, 6); i > 0; i--) this.#write();
        return;
      case "wait":
        return this.#wait(random.pick([1, 10, 100, 1_000, 5_000, 20_000, 70_000, 400_000]) * (0.5 + random.next()));
      case "cut":
        return network.cut();
      case "hole":
        return network.hole();
      case "heal":
        return network.heal();
      case "stall":
        return network.stall();
      case "compact":
        return this.#server.compact(this.#server.revision - random.pick([0, 0, 2, 5]));
      case "endWatches":
        return network.endWatches();
      case "bookmarks":
        return network.bookmarkAll();
      case "mood":
        return this.#changeMood();
      case "deny":
        return this.#deny(this.#client().identity.principal);
      case "allow":
        return this.#allow();
      case "crash":
        return this.#crash();
      case "restart":
        return this.#restart();
      case "read":
        return this.#read();
      case "hangUp":
        return this.#client().stream?.hangUp();
      case "stick":
        return this.#client().stream?.stick(random.pick([0, 0, 1, 3]));
      case "drain":
        for (const { stream } of this.#clients) stream?.drain();
        return;
      case "kubectl":
        return this.#kubectl();
      case "restartClient":
        return this.#client().restart();
      case "absence":
        return this.#absence();
      case "lag":
        return this.#lag();
      case "restore":
        return this.#restore();
      case "jump":
        return this.#clock.jump(random.pick([-1, 1]) * random.pick([1_000, 86_400_000]));
      default:
        return this.#doOnTheWay(step);
    }
  }

  #doOnTheWay(step: keyof typeof WAY_WEIGHTS): void {
    const random = this.#random;
    switch (step) {
      case "foreign":
        Object.assign(this.#wire.mood.foreign, {
          status: random.pick([200, 404, 403, 302]),
          left: random.between(1, 6),
        });
        return this.#wait(random.pick([100, 2_000]));
      case "freeze":
        this.#wire.mood.isFrozen = true;
        return;
      case "thaw":
        return this.#wire.thaw();
      case "blink":
        return this.#blink();
      case "stranger":
        return this.#stranger();
      case "ownWrite":
        return this.#ownWrite();
      case "memory":
        return this.#remembers();
    }
  }

  /** A refusal that stands for seconds, as after an API server's start, and takes nothing away. */
  #blink(): void {
    const { principal } = this.#client().identity;
    const { store } = this.#process!;
    const refusedAtMs = this.#refusedAtMs.get(principal) ?? Number.NEGATIVE_INFINITY;
    const isFirst = this.#clock.monotonicMs() - refusedAtMs >= REFUSAL_MEMORY_MS;
    const kept = store
      .copies()
      .filter(({ identity, listed }) => identity.principal === principal && listed !== undefined);
    this.#deny(principal);
    for (const client of this.#clients) if (this.#random.chance(0.5)) client.restart();
    this.#wait(this.#random.pick([200, 2_000, 8_000]));
    this.#allow();
    for (const { identity, isDropped } of isFirst ? kept : [])
      if (isDropped) this.#checks.fail("P1", `${nameOf(identity)} was taken away by a refusal of seconds`);
  }

  /** Somebody whom the API server does not know gets nothing, and leaves nothing. */
  #stranger(): void {
    const identity = { ...this.#identity(), principal: `token:made-up-${this.#steps}` };
    const asked = this.#random.pick(["", "0"]);
    const process = this.#process!;
    process.list(identity, asked).then(
      () => this.#checks.fail("P4", `${identity.principal} was answered`),
      (error: unknown) => {
        this.#excused(error);
        // One that broke off is still under way.
        if (error instanceof LocalError && error.code === 0) return;
        for (const scope of process.scopes.all())
          if (scope.identity.principal === identity.principal)
            this.#checks.fail("P4", `a scope is kept for ${identity.principal}`);
      },
    );
    settle();
    this.#wait(this.#random.pick([0, 3_000]));
    for (const copy of this.#process!.store.copies())
      if (copy.identity.principal === identity.principal && copy.listed !== undefined)
        this.#checks.fail("P4", `a copy is kept for ${identity.principal}`);
  }

  /** A client writes: sometimes what changes nothing, which is answered with the object as old as it is. */
  #ownWrite(): void {
    const random = this.#random;
    const [object] = this.#server.objects(random.pick(RESOURCES));
    if (object === undefined) return;
    const { resource, namespace, name } = object;
    const place = namespace === "" ? "" : `/namespaces/${namespace}`;
    const body = JSON.stringify({ app: random.chance(0.5) ? object.app : random.pick(["x", "y"]), node: object.node });
    const principal = random.pick(PRINCIPALS);
    (this.#process as unknown as WayProcess)
      .request(principal.replace("token:", ""), "PUT", `/api/v1${place}/${resource}/${name}`, body)
      .then(
        ({ status, text }) => {
          this.#count(`own write ${status}`);
          if (status !== 200) return;
          // What stands in the way may have answered for the API server: a planted fault hands it on.
          if (!text.startsWith("{"))
            return this.#checks.fail("P1", `an own write is answered with ${text.slice(0, 40)}`);
          (this.#checks as WayChecks).written(principal, readObject(JSON.parse(text)));
        },
        (error: unknown) => this.#excused(error),
      );
  }

  /** While cut, what a client was given and nobody took back is there. */
  #remembers(): void {
    const process = this.#process!;
    if (this.#network.mode !== "cut" || process.link.isOnline() || this.#server.restores > 0) return;
    for (const { identity, name, position } of this.#clients) {
      const refusedAtMs = this.#refusedAtMs.get(identity.principal) ?? Number.NEGATIVE_INFINITY;
      if (position === "" || this.#clock.monotonicMs() - refusedAtMs < REFUSAL_MEMORY_MS) continue;
      process.list(identity, "").then(
        () => this.#count("remembered"),
        (error: unknown) => {
          if (
            error instanceof LocalError &&
            error.code === 503 &&
            this.#process === process &&
            !process.link.isOnline()
          )
            this.#checks.fail("P1", `${name}'s ${nameOf(identity)} is not remembered while cut: ${error.message}`);
        },
      );
    }
  }

  #write(): void {
    const random = this.#random;
    const resource = random.pick(RESOURCES);
    const namespace = resource === "nodes" ? "" : random.pick(["shop", "ops"]);
    const name = random.pick(["a", "b", "c", "d"]);
    const known = this.#server.objects(resource).find((other) => keyOf(other) === keyOf({ namespace, name }));
    const fields = { app: random.pick(["x", "y"]), node: random.pick(["n1", "n2"]) };
    if (known === undefined || random.chance(0.6)) {
      const isSame = known !== undefined && random.chance(0.6);
      this.#server.write(resource, namespace, name, isSame ? { app: known.app, node: known.node } : fields);
    } else {
      this.#server.write(resource, namespace, name, undefined);
      if (random.chance(0.4)) this.#server.write(resource, namespace, name, fields);
    }
    this.#say(() => `${resource} ${keyOf({ namespace, name })} written, now at ${this.#server.revision}`);
  }

  /** The link is gone for a while, and the world goes on without this node. */
  #absence(): void {
    const random = this.#random;
    if (random.chance(0.7)) this.#network.cut();
    else this.#network.hole();
    this.#wait(random.pick([100, 5_000, 60_000]));
    for (let i = random.between(1, 10); i > 0; i--) this.#write();
    if (random.chance(0.5) && this.#weights.compact > 0) this.#server.compact(this.#server.revision);
    if (random.chance(0.3)) this.#client().stream?.stick(random.pick([0, 1, 3]));
    this.#network.heal();
    for (let i = random.between(0, 2); i > 0; i--) {
      this.#wait(random.pick([10, 500, 1_500]));
      this.#write();
      if (random.chance(0.3)) this.#client().restart();
    }
  }

  /** Watches fall behind what a list says; clients begin ahead of what is kept. */
  #lag(): void {
    const random = this.#random;
    this.#network.lag();
    for (let i = random.between(1, 8); i > 0; i--) this.#write();
    for (const client of this.#clients) if (random.chance(0.4)) client.restart();
    this.#wait(random.pick([1_000, 3_000]));
    if (random.chance(0.3)) this.#write();
    if (random.chance(0.2) && this.#weights.compact > 0) this.#server.compact(this.#server.revision);
    if (random.chance(0.6)) this.#network.catchUp();
    else this.#network.endWatches();
  }

  /**
   * etcd is restored from a backup, and a write of this node's tells so before
   * history has caught up. (One that was not told in time would go unnoticed,
   * by a client of the API server itself too, and so do scopes that nobody
   * follows just then: they are left out.)
   */
  #restore(): void {
    const process = this.#process!;
    this.#clearWeather();
    this.#wait(30_000);
    for (const principal of PRINCIPALS) process.remember(principal);
    for (const scope of process.scopes.all()) scope.ensureFresh().catch((error: unknown) => this.#refusal(error));
    this.#wait(1_500);
    this.#server.restore(Math.max(100, this.#server.revision - this.#random.between(1, 15)));
    this.#say(() => `restored to ${this.#server.revision}`);
    this.#network.breakAll();
    this.#wait(200);
    for (const { isFollowing, identity } of [...process.scopes.all()])
      if (!isFollowing)
        process.scopes.forget(identity.principal, (other) => identityText(other) === identityText(identity));
    // Twice: the link may just then have looked lost, and the first been answered from a copy.
    for (let told = 0; told < 2; told++) {
      for (const resource of RESOURCES) process.wrote(resource, this.#server.revision);
      this.#wait(60_000);
    }
    // One that fell asleep since has been told, and lists when it wakes: within a wider copy its clients need it no more.
    const isToList = (identity: ScopeIdentity) => {
      const scope = process.scopes.find(identity);
      return scope?.hasRolledBack === true && !scope.isFollowing;
    };
    for (const { identity, listed } of process.store.copies())
      if (Number(listed?.resourceVersion ?? 0) > this.#server.revision && !isToList(identity))
        this.#checks.fail("P2", `${nameOf(identity)} kept at ${listed!.resourceVersion} after history went back`);
    for (const client of this.#clients) if (Number(client.position) > this.#server.revision) client.restart();
  }

  /** The only thing that may go wrong is what the world does. */
  #refusal(error: unknown): void {
    if ((error as { code?: unknown }).code === undefined) this.#excused(error);
  }

  #wait(ms: number): void {
    this.#say(() => `${Math.round(ms)} ms pass`);
    if (!this.#clock.pass(ms)) this.#checks.fail("answers", "timers that never rest");
  }

  #changeMood(): void {
    const { mood } = this.#network;
    const random = this.#random;
    switch (random.between(0, 3)) {
      case 0:
        mood.errors = { status: random.pick([429, 500, 503, 504]), left: random.between(1, 5) };
        return;
      case 1:
        mood.truncated = random.between(1, 3);
        return;
      case 2:
        mood.slowMs = random.pick([0, 500, 1_500, 4_000]);
        return;
      case 3:
        this.#network.pageItems = random.pick([1, 2, 3, 500]);
    }
  }

  /** 403 is about a resource, 401 about a principal. */
  #deny(principal: string): void {
    this.#refusedAtMs.set(principal, this.#clock.monotonicMs());
    if (this.#random.chance(0.7)) return this.#server.deny(principal, this.#random.pick(RESOURCES), 403);
    for (const resource of RESOURCES) this.#server.deny(principal, resource, 401);
  }

  #allow(): void {
    for (const principal of PRINCIPALS)
      for (const resource of RESOURCES) this.#server.deny(principal, resource, undefined);
  }

  #crash(): void {
    this.#process?.crash();
    this.#network.breakAll();
    settle();
    for (const client of this.#clients) client.reset();
    this.#disk.crash();
    settle();
    this.#boot();
  }

  #restart(): void {
    this.#process?.stop();
    this.#network.breakAll();
    settle();
    for (const client of this.#clients) client.reset();
    this.#boot();
  }

  /** One GET, as kubelet makes them. */
  #read(): void {
    const { identity, name: client } = this.#client();
    const namespace = identity.resource === "nodes" ? "" : this.#random.pick(["shop", "ops"]);
    const name = this.#random.pick(["a", "b", "c", "d"]);
    const resourceVersion = this.#random.pick(["", "0"]);
    const all = { ...identity, namespace: "", fieldSelector: "", labelSelector: "" };
    this.#process!.get(all, namespace, name, resourceVersion).then(
      ({ object, from }) => {
        this.#count(from === undefined ? "get: forwarded" : "get: copy");
        this.#say(() => `${client} got ${namespace}/${name}@${object?.revision ?? "404"}`);
        if (object === undefined) return;
        if (from === undefined) this.#checks.got({ ...all, resource: `${all.resource}/get` }, object);
        else this.#checks.got(from, object);
      },
      (error: unknown) => this.#excused(error),
    );
  }

  /** One LIST of the most recent, of some collection, known or new. */
  #kubectl(): void {
    const identity = this.#random.chance(0.7) ? this.#client().identity : this.#identity();
    this.#process!.list(identity, "").then(
      (list) => {
        this.#count("kubectl list");
        this.#say(() => `kubectl listed ${nameOf(identity)} at ${list.revision}`);
        this.#checks.listed(identity, list, "");
      },
      (error: unknown) => this.#excused(error),
    );
  }

  #excused(error: unknown): void {
    if (!(error instanceof LocalError)) this.#checks.fail("answers", `internal error: ${String(error)}`);
  }

  #client(): Reflector {
    return this.#random.pick(this.#clients);
  }

  #observe(): void {
    for (const { stream } of this.#clients) stream?.check?.stillOpen();
    const process = this.#process!;
    if (this.#disk instanceof MemoryDisk || this.#steps % 10 === 0) this.#checks.rows(process.store, "after a step");
    const waitingSinceMs = process.waitingSinceMs ?? Number.POSITIVE_INFINITY;
    if (this.#clock.monotonicMs() - waitingSinceMs > PATIENCE_MS)
      this.#checks.fail("answers", `a request has waited since ${waitingSinceMs}`);
  }

  /** The weather clears; everybody must come to know the truth. */
  #clear(): void {
    this.#say(() => "the weather clears");
    this.#clearWeather();
    this.#wait(CLEARING_MS);
    this.#observe();
    this.#network.bookmarkAll();
    this.#wait(100_000);
    for (const { belief, identity, name } of this.#clients)
      this.#checks.complete("P2", identity, belief, this.#server.revision, `in the end ${name}'s view`);
  }

  #clearWeather(): void {
    this.#allow();
    this.#network.heal();
    this.#wire.thaw();
    this.#wire.mood.foreign.left = 0;
    Object.assign(this.#network.mood, { errors: { status: 500, left: 0 }, truncated: 0, slowMs: 0 });
    for (const { stream } of this.#clients) stream?.drain();
  }

  #count(what: string): void {
    this.#counts.set(what, (this.#counts.get(what) ?? 0) + 1);
  }

  #say(text: () => string): void {
    if (this.options.isTraced !== true) return;
    this.#trace.push(`${(this.#clock.monotonicMs() / 1_000 - 1_000).toFixed(3)} ${text()}`);
  }
}
