/**
 * Holdfast as its clients meet it: the real scopes and the real link, behind
 * what front decides (route, forward, serve), told again; the real way is `way-process.ts`.
 *
 * One instance is one process. After `crash` nothing of it runs on: its timers
 * are dead, its answers never arrive, its clients are cut off.
 */

import type { Clock } from "../../src/base/clock.ts";
import { silentLog } from "../../src/base/log.ts";
import { isLocalVersion } from "../../src/cache/edits.ts";
import { listPieces } from "../../src/cache/list-copy.ts";
import type { Overlays } from "../../src/node/overlays.ts";
import type { StatusTarget } from "../../src/node/status-patch.ts";
import type { WatchRequest } from "../../src/cache/local-watches.ts";
import type { Scope } from "../../src/cache/scope.ts";
import type { ScopeLimits, ScopeParts } from "../../src/cache/scope-parts.ts";
import type { WireAnswer } from "../../src/uplink/read-answer.ts";
import type { ScopeSource } from "../../src/uplink/scope-source.ts";
import type { Scopes } from "../../src/cache/scopes.ts";
import type { WatchSink } from "../../src/cache/frames.ts";
import { MalformedError } from "../../src/kube/codec.ts";
import { compareResourceVersions } from "../../src/kube/resource-version.ts";
import { StatusError, resourceVersionTooLarge, unavailable } from "../../src/kube/status-error.ts";
import { Link } from "../../src/uplink/link.ts";
import type { AgentReturn, DropReason } from "../../src/node/agent-return.ts";
import type { WaitingChanges } from "../../src/node/overlays.ts";
import type { NodeWord, Reconnect } from "../../src/node/reconnect.ts";
import type { ScopeIdentity, Store } from "../../src/store/contract.ts";
import { nameOf } from "./checks.ts";
import type { VirtualClock } from "./clock.ts";
import type { Code } from "./code.ts";
import type { Disk } from "./disk.ts";
import type { Network } from "./network.ts";

/** What a client gets instead of an answer; code 0 is a connection refused or reset. */
export class LocalError extends Error {
  constructor(
    readonly code: number,
    message: string,
  ) {
    super(message);
  }
}

/** An object as a client reads it. */
export interface ReadObject {
  readonly namespace: string;
  readonly name: string;
  readonly uid: string;
  readonly revision: number;
  readonly value: string;
  /** A status, or endpoints, as JSON; "" for none. */
  readonly body: string;
  /** Its annotation; "" for none. */
  readonly note: string;
  /** When it was asked for, as `nextOrder` counts; undefined for what was not. */
  readonly asked?: number;
}

let order = 0;

/** Counts questions and answers: of two that overlap in time either may be the first. */
export function nextOrder(): number {
  return ++order;
}

/** A list as a client reads it. */
export interface ReadList {
  readonly revision: number;
  readonly items: readonly ReadObject[];
}

/** Where a fault may wrap what a process is given. */
export interface Seams {
  readonly store?: (store: Store, parts: { readonly link: Link }) => Store;
  readonly source?: (source: ScopeSource) => ScopeSource;
  /** Called once the process stands. */
  readonly started?: (parts: { readonly link: Link; readonly scopes: Scopes }) => void;
}

/** What a process is made of. */
export interface ProcessParts {
  readonly code: Code;
  readonly seams: Seams;
  readonly clock: VirtualClock;
  readonly network: Network;
  readonly disk: Disk;
  readonly random: () => number;
  readonly limits: ScopeLimits;
  /** Whose node this is; overlays and the order of the return are for it alone. Default: nobody's. */
  readonly node?: { readonly principal: string; readonly name: string };
  /** A write of an agent as it reaches the API server at the return. */
  readonly agentWrites?: (group: WaitingChanges, body: string) => { readonly status: number; readonly text: string };
  /** An agent's change never goes up. */
  readonly onAgentDropped?: (reason: DropReason, target: StatusTarget) => void;
  /** A scope lists upstream, and what it held then. */
  readonly onScopeList: (identity: ScopeIdentity, held: string | undefined) => void;
  /** An answer that is no answer: an exception nobody expected. */
  readonly onInternalError: (error: unknown) => void;
  readonly count: (what: string) => void;
  readonly trace: (text: () => string) => void;
}

/** What clients and checks see of a life of Holdfast, whichever rooms it has. */
export type ProcessFace = Pick<
  NodeProcess,
  | "link"
  | "store"
  | "scopes"
  | "isStopping"
  | "waitingSinceMs"
  | "crash"
  | "stop"
  | "list"
  | "watch"
  | "get"
  | "remember"
  | "wrote"
  | "heldOf"
>;

/** One life of Holdfast. */
export class NodeProcess {
  readonly link: Link;
  readonly store: Store;
  readonly scopes: Scopes;
  isStopping = false;
  readonly overlays: Overlays | undefined;
  readonly #reconnect: Reconnect | undefined;
  #isAlive = true;
  readonly #clock: Clock;
  readonly #credentials = new Set<string>();
  readonly #refusedTokens = new Set<string>();
  readonly #pending = new Map<(error: Error) => void, number>();
  readonly #stopped = new AbortController();

  constructor(private readonly parts: ProcessParts) {
    const { code, seams, clock, network, disk, random, limits, count } = parts;
    this.#clock = clock.ofProcess(() => this.#isAlive);
    this.link = new Link({
      clock: this.#clock,
      log: silentLog,
      probe: (signal) => this.#whileAlive(network.probe(signal)),
    });
    const store = disk.open(this.#clock);
    this.store = seams.store?.(store, { link: this.link }) ?? store;
    this.link.onChange((isOnline) => {
      count(isOnline ? "link up" : "link lost");
      parts.trace(() => (isOnline ? "link up" : "link lost"));
      if (!isOnline) this.store.settle();
    });
    const source: ScopeSource = {
      hasCredential: (principal) => this.#credentials.has(principal),
      list: async (identity, page, signal) => {
        if (page.continueToken === "") parts.onScopeList(identity, this.#heldBy(identity));
        parts.trace(() => `^ list ${nameOf(identity)} ${page.continueToken}`);
        const ask = () => network.list(identity, page, "", signal);
        return code.readList(await this.#ask(signal, ask, true), identity);
      },
      watch: async (identity, { resourceVersion, shape }, timeoutSeconds, signal) => {
        parts.trace(() => `^ watch ${nameOf(identity)} at ${resourceVersion}`);
        const ask = () => network.watch(identity, resourceVersion, timeoutSeconds, signal);
        return code.readWatch(await this.#ask(signal, ask, false), identity, shape);
      },
    };
    const scopeParts: ScopeParts = {
      store: this.store,
      source: seams.source?.(source) ?? source,
      link: this.link,
      clock: this.#clock,
      log: { ...silentLog, error: (message, fields) => parts.onInternalError(`${message} ${JSON.stringify(fields)}`) },
      limits,
      random,
      phase: 0.37,
      turn: (identity) => this.#reconnect?.turn(identity) ?? Promise.resolve(),
      isVoid: (localVersion) => this.overlays?.isVoid(localVersion) === true,
      countList: (reason) => count(`list: ${reason}`),
    };
    this.scopes = new code.Scopes(scopeParts, { retentionMs: 7 * 86_400_000, maxScopes: 64 });
    const { node } = parts;
    if (node !== undefined) {
      const shared = { scopes: this.scopes, clock: this.#clock, log: silentLog };
      const isCutOff = ({ state }: Scope) => this.link.state === "starting" && state !== "live";
      this.overlays = new code.Overlays({ ...shared, store: this.store, isCutOff });
      const agents = this.#agentsReturn(this.overlays, node);
      this.#reconnect = new code.Reconnect({
        ...shared,
        link: this.link,
        overlays: this.overlays,
        random,
        node: () => node,
        askNode: (name, signal) => this.#askNode(node.principal, name, signal),
        agentsReturn: (signal) => agents.sendUp(signal),
        afterwards: async () => parts.trace(() => "the return is complete"),
      });
      this.overlays.start();
      this.#reconnect.start(this.#stopped.signal);
    }
    this.link.start(this.#stopped.signal);
    seams.started?.({ link: this.link, scopes: this.scopes });
  }

  /** The moment since which the longest waiting local request waits. */
  get waitingSinceMs(): number | undefined {
    return this.#pending.values().next().value;
  }

  /** Gone without a word. */
  crash(): void {
    this.#isAlive = false;
    for (const reject of this.#pending.keys()) reject(new LocalError(0, "connection reset"));
  }

  /** Stops as on SIGTERM. */
  stop(): void {
    this.isStopping = true;
    this.scopes.close();
    this.overlays?.flush();
    this.#stopped.abort();
    this.store.settle();
    this.store.close();
    this.crash();
  }

  /** LIST: "" asks for the most recent, "0" for any, N for one not older. */
  async list(identity: ScopeIdentity, resourceVersion: string): Promise<ReadList> {
    const asked = nextOrder();
    const { revision, items } = await this.#list(identity, resourceVersion);
    return { revision, items: items.map((item) => ({ ...item, asked })) };
  }

  #list(identity: ScopeIdentity, resourceVersion: string): Promise<ReadList> {
    return this.#local(identity.principal, async () => {
      if (resourceVersion === "") return this.#listForwarded(identity, "", true);
      if (!this.link.isOnline()) return this.#listCopy(identity, resourceVersion);
      const scope = this.scopes.open(identity)!;
      try {
        await scope.ensureFresh();
      } catch (error) {
        this.#refusedBy(error, identity);
        if (error instanceof StatusError && this.scopes.find(identity)?.listed !== undefined)
          return this.#listCopy(identity, resourceVersion);
        throw error;
      }
      const held = scope.servedVersion;
      if (resourceVersion !== "0" && compareResourceVersions(held, resourceVersion) < 0 && this.link.isOnline())
        if (!isLocalVersion(resourceVersion)) return this.#listForwarded(identity, resourceVersion, false);
      return this.#listCopy(identity, resourceVersion, scope);
    });
  }

  /** WATCH; resolves when the head is out. */
  watch(
    identity: ScopeIdentity,
    request: WatchRequest,
    sink: WatchSink,
    opened: (isForwarded: boolean) => void,
  ): Promise<() => void> {
    return this.#local(identity.principal, async () => {
      const scope = this.link.isOnline() ? this.scopes.open(identity) : this.scopes.find(identity);
      if (scope === undefined) throw unavailable("never listed");
      try {
        return await scope.watch(request, () => {
          opened(false);
          return sink;
        });
      } catch (error) {
        if (error instanceof this.parts.code.AskUpstreamError)
          return this.#watchForwarded(identity, request, sink, () => opened(true));
        this.#refusedBy(error, identity);
        throw error;
      }
    });
  }

  /** The API server's own watch, handed on line by line. */
  async #watchForwarded(
    identity: ScopeIdentity,
    { resourceVersion, timeoutMs }: WatchRequest,
    sink: WatchSink,
    opened: () => void,
  ): Promise<() => void> {
    this.parts.count("watch forwarded");
    const leaving = new AbortController();
    const answer = await this.#forward(
      () => this.parts.network.watch(identity, resourceVersion, timeoutMs / 1_000, leaving.signal),
      () => false,
    );
    if (answer === "fallback") throw new LocalError(503, "unreachable");
    if (answer.status === 401 || answer.status === 403) this.#refused(answer.status, identity);
    if (answer.status !== 200) throw new LocalError(answer.status, await textOf(answer.chunks));
    opened();
    void this.#handOn(answer, sink);
    return () => leaving.abort(new Error("client left"));
  }

  async #handOn(answer: WireAnswer, sink: WatchSink): Promise<void> {
    let rest = "";
    try {
      for await (const chunk of this.#untilLinkLost(answer.chunks)) {
        const lines = (rest + Buffer.from(chunk).toString("utf8")).split("\n");
        rest = lines.pop()!;
        for (const line of lines) sink.write(Buffer.from(`${line}\n`));
      }
    } catch {
      // Broken off: the client watches again.
    }
    if (this.#isAlive) sink.end();
  }

  /** GET of one object. @returns undefined for the API server's own 404, and which scope it came from if it came from one. */
  async get(
    identity: ScopeIdentity,
    namespace: string,
    name: string,
    resourceVersion: string,
  ): Promise<{ readonly object: ReadObject | undefined; readonly from: ScopeIdentity | undefined }> {
    const asked = nextOrder();
    const { object, from } = await this.#get(identity, namespace, name, resourceVersion);
    return { object: object === undefined ? undefined : { ...object, asked }, from };
  }

  #get(
    identity: ScopeIdentity,
    namespace: string,
    name: string,
    resourceVersion: string,
  ): Promise<{ readonly object: ReadObject | undefined; readonly from: ScopeIdentity | undefined }> {
    return this.#local(identity.principal, async () => {
      const found = (isUsable: (scope: Scope) => boolean) => {
        const { principal, group, version, resource } = identity;
        const object = this.scopes.findObject(
          { principal, group, version, resource, namespace, name },
          [{ format: "json", as: "object", asVersion: "" }],
          isUsable,
        );
        if (object === undefined) return undefined;
        object.scope.use();
        const { listed, item, scope } = object;
        const bytes = scope.codec(listed).single(listed.shape, item.bytes);
        return { object: readObject(parse(bytes)), from: scope.identity };
      };
      const live = resourceVersion === "0" ? found((scope) => scope.state === "live") : undefined;
      if (live !== undefined) return live;
      const answer = await this.#forward(
        (signal) => this.parts.network.get(identity, namespace, name, signal),
        () => found(() => true) !== undefined,
      );
      if (answer === "fallback") return found(() => true)!;
      if (answer.status === 404) return { object: undefined, from: undefined };
      const text = await this.#whole(answer);
      if (answer.status !== 200) throw new LocalError(answer.status, text);
      return { object: readObject(JSON.parse(text)), from: undefined };
    });
  }

  /**
   * PATCH of a status by kubelet: to the API server, or laid over the copy.
   *
   * @returns the object, if it was answered here.
   */
  patchStatus(
    identity: ScopeIdentity,
    target: StatusTarget,
    patch: string,
    apply: () => { readonly status: number; readonly text: string },
  ): Promise<ReadObject | undefined> {
    return this.#local(identity.principal, async () => {
      await this.#reconnect!.mayWrite();
      const where = { principal: identity.principal, group: "", version: "v1", ...target };
      const isKept = () =>
        this.scopes.findObject(where, [{ format: "json", as: "object", asVersion: "" }]) !== undefined;
      const answer = await this.#forward((signal) => this.parts.network.write(identity, apply, signal), isKept, true);
      if (answer === "fallback") {
        const contentType = "application/strategic-merge-patch+json";
        const { item } = this.overlays!.patchStatus(identity.principal, target, {
          contentType,
          body: Buffer.from(patch),
        });
        return readObject(parse(item.bytes));
      }
      const text = await this.#whole(answer);
      if (answer.status !== 200) throw new LocalError(answer.status, text);
      return undefined;
    });
  }

  #agentsReturn(overlays: Overlays, node: { readonly principal: string; readonly name: string }): AgentReturn {
    const { code, network } = this.parts;
    const identityOf = (principal: string, resource: string): ScopeIdentity => {
      const any = { namespace: "", fieldSelector: "", labelSelector: "", representation: "json" };
      return { principal, group: "", version: "v1", resource, ...any };
    };
    return new code.AgentReturn({
      overlays,
      clock: this.#clock,
      log: silentLog,
      isOnline: () => this.link.isOnline(),
      ownNode: () => node,
      hasCredential: (principal) => this.#credentials.has(principal),
      read: async ({ resource, namespace, name }, signal) => {
        try {
          const identity = identityOf(node.principal, resource);
          const answer = await this.#ask(signal, () => network.get(identity, namespace, name, signal), false);
          if (answer.status === 404) return { kind: "gone" };
          return answer.status === 200 ? { kind: "there", bytes: Buffer.from(await this.#whole(answer)) } : undefined;
        } catch {
          return undefined;
        }
      },
      write: async (group, body, signal) => {
        try {
          const apply = () => this.parts.agentWrites!(group, body);
          const identity = identityOf(group.principal, group.resource);
          const answer = await this.#ask(signal, () => network.write(identity, apply, signal), false);
          await this.#whole(answer);
          if (answer.status === 200) return "done";
          return answer.status === 409 ? "conflict" : answer.status === 404 ? "refused" : "later";
        } catch {
          return "later";
        }
      },
      onForbidden: () => {},
      onDropped: (_count, reason, target) => this.parts.onAgentDropped?.(reason, target),
    });
  }

  /**
   * An agent annotates a pod: at the API server, or over the node's copy.
   *
   * @returns the object and the revision of the row beneath, if it was answered here.
   */
  annotate(
    principal: string,
    node: ScopeIdentity,
    target: StatusTarget & { readonly uid: string },
    note: string,
    apply: () => { readonly status: number; readonly text: string },
  ): Promise<{ readonly object: ReadObject; readonly row: number } | undefined> {
    return this.#local(principal, async () => {
      const where = { principal: node.principal, group: "", version: "v1", ...target };
      const found = () => this.scopes.findObject(where, [{ format: "json", as: "object", asVersion: "" }]);
      const asker = { ...node, principal };
      const answer = await this.#forward(
        (signal) => this.parts.network.write(asker, apply, signal),
        () => found() !== undefined,
        true,
      );
      if (answer !== "fallback") {
        const text = await this.#whole(answer);
        if (answer.status !== 200) throw new LocalError(answer.status, text);
        return undefined;
      }
      const before = found()!;
      if (before.item.meta.uid !== target.uid) throw new LocalError(409, "another UID");
      const row = Number(before.scope.row(target.namespace, target.name)!.meta.resourceVersion);
      const change = {
        principal,
        verb: "patch",
        field: "annotations",
        key: "note",
        now: note,
        subresource: "",
      } as const;
      this.overlays!.change(before, target, [change]);
      return { object: readObject(parse(found()!.item.bytes)), row };
    });
  }

  async #askNode(principal: string, name: string, signal: AbortSignal): Promise<NodeWord> {
    const identity = { principal, group: "", version: "v1", resource: "nodes", namespace: "", fieldSelector: "" };
    const asked = { ...identity, labelSelector: "", representation: "json" };
    try {
      const answer = await this.#ask(signal, () => this.parts.network.get(asked, "", name, signal), false);
      if (answer.status === 404) return { kind: "gone" };
      if (answer.status !== 200) return { kind: "unknown" };
      return { kind: "there", uid: readObject(JSON.parse(await textOf(answer.chunks))).uid };
    } catch {
      return { kind: "unknown" };
    }
  }

  /** A client that speaks shows its credential. */
  remember(principal: string): void {
    this.#credentials.add(principal);
  }

  /** A write of this resource went through with this answer: the proxy looks at its resourceVersion. */
  wrote(resource: string, revision: number): void {
    this.scopes.noticeResourceVersion("", resource, String(revision), this.scopes.newestHeld("", resource));
  }

  async #listForwarded(identity: ScopeIdentity, resourceVersion: string, mayAdopt: boolean): Promise<ReadList> {
    const { network } = this.parts;
    const scope = this.link.isOnline() ? this.scopes.open(identity) : undefined;
    const adoption = mayAdopt ? scope?.adopt() : undefined;
    const heldBefore = this.scopes.newestHeld("", identity.resource);
    const answer = await this.#forward(
      (signal) => network.list(identity, { limit: 0, continueToken: "" }, resourceVersion, signal),
      () => this.scopes.find(identity)?.listed !== undefined,
    );
    if (answer === "fallback") return this.#listCopy(identity, resourceVersion);
    if (answer.status === 401 || answer.status === 403) this.#refused(answer.status, identity);
    if (answer.status !== 200) throw new LocalError(answer.status, await textOf(answer.chunks));
    adoption?.begin("application/json");
    const parts: Uint8Array[] = [];
    try {
      for await (const chunk of this.#untilLinkLost(answer.chunks)) {
        parts.push(chunk);
        adoption?.push(chunk);
      }
    } catch {
      adoption?.abort();
      throw new LocalError(0, "list broke off");
    }
    adoption?.end();
    if (scope?.isFollowing === false) scope.ensureFresh().catch(() => {});
    const body = Buffer.concat(parts).toString("utf8");
    let list: ReadList;
    try {
      list = readList(JSON.parse(body));
    } catch {
      throw new LocalError(0, "list came short");
    }
    this.scopes.noticeResourceVersion("", identity.resource, String(list.revision), heldBefore);
    return list;
  }

  #listCopy(identity: ScopeIdentity, resourceVersion: string, scope = this.scopes.find(identity)): ReadList {
    using snapshot = scope?.snapshot();
    if (scope === undefined || snapshot === undefined) throw unavailable("never listed");
    const { listed } = snapshot;
    if (resourceVersion !== "" && resourceVersion !== "0")
      if (compareResourceVersions(resourceVersion, listed.resourceVersion) > 0)
        throw resourceVersionTooLarge(resourceVersion, listed.resourceVersion);
    return readList(parse(Buffer.concat([...listPieces(scope.codec(listed), snapshot, listed.resourceVersion)])));
  }

  /** As src/front/forward.ts: the API server's answer, or the word that the copy is to serve. */
  async #forward(
    ask: (signal: AbortSignal) => Promise<WireAnswer>,
    canServe: () => boolean,
    isWrite = false,
  ): Promise<WireAnswer | "fallback"> {
    const offline = () => {
      if (canServe()) return "fallback" as const;
      throw unavailable("Cannot read: the API server cannot be reached and no copy of this is kept for this caller");
    };
    if (!this.link.isOnline()) return offline();
    const controller = new AbortController();
    const lost = Promise.withResolvers<undefined>();
    const stopListening = this.link.onChange((isOnline) => isOnline || lost.resolve(undefined));
    const cancelImpatience = this.#clock.after(this.link.patienceMs, () => {
      if ((isWrite && this.link.state !== "starting") || !canServe()) return;
      this.link.suspect();
      lost.resolve(undefined);
    });
    try {
      const asking = this.#ask(controller.signal, () => ask(controller.signal), false);
      asking.catch(() => {});
      const answer = await Promise.race([asking, lost.promise]);
      if (answer === undefined) {
        controller.abort();
        return offline();
      }
      if (isWrite || answer.status < 500 || !canServe()) return answer;
      controller.abort();
      return "fallback";
    } catch (error) {
      if (!(error instanceof this.parts.code.UnreachableError)) throw error;
      if (isWrite && canServe() && (await Promise.race([this.link.standsAfterFailure(), lost.promise])) === true)
        throw new LocalError(503, "the write was not answered");
      return offline();
    } finally {
      stopListening();
      cancelImpatience();
    }
  }

  async #whole(answer: WireAnswer): Promise<string> {
    return textOf(this.#untilLinkLost(answer.chunks));
  }

  /** A forwarded body that stops half-way on a dead link is broken off. */
  async *#untilLinkLost(chunks: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
    const lost = Promise.withResolvers<never>();
    lost.promise.catch(() => {});
    const stopListening = this.link.onChange((isOnline) => isOnline || lost.reject(new LocalError(0, "link lost")));
    const iterator = chunks[Symbol.asyncIterator]();
    try {
      for (;;) {
        const { done, value } = await Promise.race([iterator.next(), lost.promise]);
        if (done === true) return;
        yield value;
      }
    } finally {
      stopListening();
    }
  }

  /** As src/uplink/upstream.ts and scope-upstream.ts: what is heard, fails or waits is told to the link. */
  async #ask(signal: AbortSignal, ask: () => Promise<WireAnswer>, isList: boolean): Promise<WireAnswer> {
    const cancelWaiting = this.#clock.after(1_000, () => this.link.suspect());
    try {
      const answer = await this.#whileAlive(ask());
      this.link.heard();
      return { ...answer, chunks: this.#chunks(answer.chunks, isList) };
    } catch (error) {
      if (!signal.aborted) this.link.failed();
      throw error;
    } finally {
      cancelWaiting();
    }
  }

  async *#chunks(chunks: AsyncIterable<Uint8Array>, isList: boolean): AsyncGenerator<Uint8Array> {
    const iterator = chunks[Symbol.asyncIterator]();
    for (;;) {
      const cancel = isList ? this.#clock.after(1_000, () => this.link.suspect()) : () => {};
      try {
        const { done, value } = await this.#whileAlive(iterator.next());
        if (done === true) return;
        yield value;
      } finally {
        cancel();
      }
    }
  }

  /** A promise that never settles once the process is gone. */
  async #whileAlive<T>(promise: Promise<T>): Promise<T> {
    try {
      return await promise;
    } finally {
      if (!this.#isAlive) await new Promise(() => {});
    }
  }

  #local<T>(principal: string, work: () => Promise<T>): Promise<T> {
    const { promise, resolve, reject } = Promise.withResolvers<T>();
    if (!this.#isAlive) reject(new LocalError(0, "connection refused"));
    else if (this.#refusedTokens.has(principal) && !this.link.isOnline()) reject(new LocalError(401, "refused token"));
    else {
      this.#credentials.add(principal);
      this.#pending.set(reject, this.parts.clock.monotonicMs());
      work()
        .then(resolve, (error: unknown) => reject(this.#localError(error)))
        .finally(() => this.#pending.delete(reject));
    }
    return promise;
  }

  #localError(error: unknown): LocalError {
    const { UnreachableError, UpstreamRefusedError } = this.parts.code;
    if (error instanceof LocalError) return error;
    if (error instanceof StatusError) return new LocalError(error.status.code, error.message);
    if (error instanceof UpstreamRefusedError) return new LocalError(error.status, error.body);
    if (error instanceof UnreachableError || error instanceof MalformedError) return new LocalError(503, error.message);
    this.parts.onInternalError(error);
    return new LocalError(500, String(error));
  }

  /** The resourceVersion that is held of a collection; 0 for none. */
  heldOf(identity: ScopeIdentity): number {
    return Number(this.#heldBy(identity) ?? 0);
  }

  #heldBy(identity: ScopeIdentity): string | undefined {
    return this.scopes.find(identity)?.listed?.resourceVersion;
  }

  #refusedBy(error: unknown, identity: ScopeIdentity): void {
    const status = (error as { status?: unknown }).status;
    if (status === 401 || status === 403) this.#refused(status, identity);
  }

  /** As src/front/proxy.ts. */
  #refused(status: 401 | 403, identity: ScopeIdentity): void {
    const { principal, resource, namespace, fieldSelector, labelSelector } = identity;
    if (status === 403) {
      return this.scopes.forget(
        principal,
        (other) =>
          other.resource === resource &&
          other.namespace === namespace &&
          other.fieldSelector === fieldSelector &&
          other.labelSelector === labelSelector,
      );
    }
    this.#refusedTokens.add(principal);
    this.#credentials.delete(principal);
    this.scopes.forget(principal, () => true);
  }
}

interface Parsed {
  readonly metadata: {
    readonly namespace?: string;
    readonly name: string;
    readonly uid: string;
    readonly resourceVersion: string;
    readonly annotations?: { readonly note?: string };
  };
  readonly value: string;
  readonly status?: object;
  readonly endpoints?: object;
}

/** The fields of an object that the checks look at. */
export function readObject({ metadata, value, status, endpoints }: Parsed): ReadObject {
  const { namespace = "", name, uid, resourceVersion, annotations } = metadata;
  const body = JSON.stringify(status ?? endpoints) ?? "";
  return { namespace, name, uid, revision: Number(resourceVersion), value, body, note: annotations?.note ?? "" };
}

function readList(list: {
  readonly metadata: { readonly resourceVersion: string };
  readonly items: Parsed[];
}): ReadList {
  return { revision: Number(list.metadata.resourceVersion), items: list.items.map(readObject) };
}

function parse(bytes: Uint8Array): never {
  return JSON.parse(Buffer.from(bytes).toString("utf8")) as never;
}

async function textOf(chunks: AsyncIterable<Uint8Array>): Promise<string> {
  const parts: Uint8Array[] = [];
  for await (const chunk of chunks) parts.push(chunk);
  return Buffer.concat(parts).toString("utf8");
}
