/**
 * A world for sharing: services with labels behind one API server of a few
 * lines, and as many principals as a test names.
 *
 * The server decides selectors by itself, from its own objects and not from
 * bytes, so that what it would have sent is independent evidence.
 */

import { silentLog } from "../../src/base/log.ts";
import type { AccessReviewer, Collection, ReadVerb } from "../../src/callers/permissions.ts";
import { readList, readWatch, type WireAnswer } from "../../src/uplink/read-answer.ts";
import {
  UnreachableError,
  type ListPage,
  type ScopeSource,
  type WatchStart,
  type WatchStream,
} from "../../src/uplink/scope-source.ts";
import type { Scope } from "../../src/cache/scope.ts";
import type { ScopeLimits } from "../../src/cache/scope-parts.ts";
import { Scopes } from "../../src/cache/scopes.ts";
import { SharingSource } from "../../src/cache/sharing.ts";
import type { ScopeIdentity } from "../../src/store/contract.ts";
import { MemoryStore } from "./memory-store.ts";
import { ManualClock, ModelLink, Received, settle } from "./model.ts";

/** One service as the server keeps it. */
export interface Service {
  readonly namespace: string;
  readonly name: string;
  readonly uid: string;
  readonly resourceVersion: number;
  readonly labels: Readonly<Record<string, string>>;
  readonly clusterIP: string;
}

interface Change {
  readonly revision: number;
  readonly before: Service | undefined;
  readonly after: Service | undefined;
}

interface ServerWatch {
  readonly identity: ScopeIdentity;
  push(text: string): void;
  end(error?: Error): void;
}

const TERMS: Readonly<Record<string, (service: Service) => boolean>> = {
  "": () => true,
  "!proxy": ({ labels }) => labels["proxy"] === undefined,
  "app=web": ({ labels }) => labels["app"] === "web",
  "app notin (web)": ({ labels }) => labels["app"] !== "web",
  "spec.clusterIP!=None": ({ clusterIP }) => clusterIP !== "None",
};

/** The server's own decision; only for selectors in its table. */
export function selects(identity: ScopeIdentity, service: Service | undefined): boolean {
  if (service === undefined || (identity.namespace !== "" && identity.namespace !== service.namespace)) return false;
  const [, id] = /^id=([0-9]+)$/.exec(identity.labelSelector) ?? [];
  const isLabelled = id === undefined ? TERMS[identity.labelSelector]!(service) : service.labels["id"] === id;
  return isLabelled && TERMS[identity.fieldSelector]!(service);
}

/** What a change is to who selects: "TYPE name@resourceVersion", or undefined. */
export function eventFor(identity: ScopeIdentity, { before, after, revision }: Change): string | undefined {
  const [was, is] = [selects(identity, before), selects(identity, after)];
  if (!was && !is) return undefined;
  const type = is ? (was ? "MODIFIED" : "ADDED") : "DELETED";
  return `${type} ${(after ?? before)!.name}@${revision}`;
}

/** The API server of this world. */
export class ServiceServer implements ScopeSource, AccessReviewer {
  revision = 100;
  compactedTo = 0;
  isReachable = true;
  /** Principals that may not read all services; their selected requests are let through unless also in `refused`. */
  readonly forbidden = new Set<string>();
  readonly refused = new Set<string>();
  /** Reviews get no answer. */
  isMute = false;
  readonly lists: ScopeIdentity[] = [];
  readonly watchesOpened: ScopeIdentity[] = [];
  readonly reviews: string[] = [];
  readonly changes: Change[] = [];
  watches: ServerWatch[] = [];
  #services = new Map<string, Service>();
  #uid = 0;

  put(
    name: string,
    labels: Record<string, string> = {},
    options: { namespace?: string; clusterIP?: string } = {},
  ): void {
    const namespace = options.namespace ?? "shop";
    const key = `${namespace}/${name}`;
    const before = this.#services.get(key);
    const after = {
      namespace,
      name,
      labels,
      uid: before?.uid ?? `uid-${++this.#uid}`,
      resourceVersion: ++this.revision,
      clusterIP: options.clusterIP ?? "10.0.0.1",
    };
    this.#services.set(key, after);
    this.#record({ revision: this.revision, before, after });
  }

  remove(name: string, namespace = "shop"): void {
    const before = this.#services.get(`${namespace}/${name}`);
    if (before === undefined) return;
    this.#services.delete(`${namespace}/${name}`);
    this.#record({ revision: ++this.revision, before, after: undefined });
  }

  /** Back to a revision, as a backup restores it; open watches are not told. */
  restore(revision: number, names: readonly string[]): void {
    for (const [key, { name }] of this.#services) if (!names.includes(name)) this.#services.delete(key);
    this.revision = revision;
    this.changes.length = 0;
  }

  /** Something else in the cluster changed. */
  tick(): void {
    this.revision++;
  }

  compact(): void {
    this.compactedTo = this.revision;
  }

  bookmark(): void {
    for (const watch of this.watches)
      watch.push(
        `{"type":"BOOKMARK","object":{"kind":"Service","apiVersion":"v1","metadata":{"resourceVersion":"${this.revision}"}}}\n`,
      );
  }

  breakWatches(): void {
    for (const watch of this.watches.splice(0)) watch.end(new UnreachableError("reset"));
  }

  /** Selected names, as a reader of the whole would see them. */
  names(identity: ScopeIdentity): string[] {
    return [...this.#services.values()]
      .filter((service) => selects(identity, service))
      .map(({ name, resourceVersion }) => `${name}@${resourceVersion}`)
      .sort();
  }

  hasCredential(): boolean {
    return true;
  }

  async mayAccess(principal: string, verb: ReadVerb, { namespace }: Collection): Promise<boolean | undefined> {
    this.reviews.push(`${principal} ${verb} ${namespace}`);
    if (!this.isReachable) throw new UnreachableError("cut");
    if (this.isMute) return undefined;
    return !this.forbidden.has(principal) && !this.refused.has(principal);
  }

  async list(identity: ScopeIdentity): Promise<ListPage> {
    return readList(await this.#list(identity), identity);
  }

  async #list(identity: ScopeIdentity): Promise<WireAnswer> {
    this.lists.push(identity);
    await settleOnce();
    this.#admit(identity);
    if (this.#isForbidden(identity)) return answer(403, ['{"kind":"Status","apiVersion":"v1","reason":"Forbidden"}']);
    const items = [...this.#services.values()]
      .filter((service) => selects(identity, service))
      .sort((a, b) => (`${a.namespace}/${a.name}` < `${b.namespace}/${b.name}` ? -1 : 1))
      .map(bareText);
    return answer(200, [
      `{"kind":"ServiceList","apiVersion":"v1","metadata":{"resourceVersion":"${this.revision}"},"items":[${items.join(",")}]}\n`,
    ]);
  }

  async watch(
    identity: ScopeIdentity,
    { resourceVersion, shape }: WatchStart,
    _timeoutSeconds: number,
    signal: AbortSignal,
  ): Promise<WatchStream> {
    return readWatch(this.#watch(identity, resourceVersion, signal), identity, shape);
  }

  #watch(identity: ScopeIdentity, resourceVersion: string, signal: AbortSignal): WireAnswer {
    this.watchesOpened.push(identity);
    this.#admit(identity);
    if (this.#isForbidden(identity)) return answer(403, ['{"kind":"Status","apiVersion":"v1","reason":"Forbidden"}']);
    const from = Number(resourceVersion);
    if (from < this.compactedTo)
      return answer(410, ['{"kind":"Status","apiVersion":"v1","reason":"Expired","code":410}']);
    const queue = this.changes
      .filter(({ revision }) => revision > from)
      .flatMap((change) => this.#frame(identity, change));
    let wake = () => {};
    let over: { error?: Error } | undefined;
    const watch: ServerWatch = {
      identity,
      push: (text) => {
        queue.push(text);
        wake();
      },
      end: (error) => {
        over = error === undefined ? {} : { error };
        wake();
      },
    };
    this.watches.push(watch);
    signal.addEventListener("abort", () => watch.end(new UnreachableError("aborted")));
    const self = this;
    async function* chunks(): AsyncGenerator<Uint8Array> {
      try {
        for (;;) {
          while (queue.length > 0) yield Buffer.from(queue.shift()!);
          if (over?.error !== undefined) throw over.error;
          if (over !== undefined) return;
          await new Promise<void>((resolve) => (wake = resolve));
        }
      } finally {
        self.watches = self.watches.filter((other) => other !== watch);
      }
    }
    return { ...answer(200, []), chunks: chunks() };
  }

  #admit(identity: ScopeIdentity): void {
    if (!this.isReachable) throw new UnreachableError(`cut: ${identity.principal}`);
  }

  #isForbidden({ principal, fieldSelector, labelSelector }: ScopeIdentity): boolean {
    const isWhole = fieldSelector === "" && labelSelector === "";
    return this.refused.has(principal) || (isWhole && this.forbidden.has(principal));
  }

  #record(change: Change): void {
    this.changes.push(change);
    for (const watch of this.watches) for (const text of this.#frame(watch.identity, change)) watch.push(text);
  }

  #frame(identity: ScopeIdentity, change: Change): string[] {
    const event = eventFor(identity, change);
    if (event === undefined) return [];
    const [type] = event.split(" ");
    const object = { ...(type === "DELETED" ? change.before! : change.after!), resourceVersion: change.revision };
    return [`{"type":"${type}","object":{"kind":"Service","apiVersion":"v1",${bareText(object).slice(1)}}\n`];
  }
}

const settleOnce = () => new Promise((resolve) => setImmediate(resolve));

function bareText({ namespace, name, uid, resourceVersion, labels, clusterIP }: Service): string {
  return JSON.stringify({
    metadata: { name, namespace, uid, resourceVersion: String(resourceVersion), labels },
    spec: { clusterIP },
  });
}

function answer(status: number, parts: readonly string[]): WireAnswer {
  async function* chunks(): AsyncGenerator<Uint8Array> {
    for (const part of parts) yield Buffer.from(part);
  }
  return {
    status,
    header: (name) => (name === "content-type" ? "application/json" : undefined),
    chunks: chunks(),
  };
}

/** Everything together, sharing in the middle. */
export function startSharingModel(limits: Partial<ScopeLimits> = {}) {
  const clock = new ManualClock();
  const server = new ServiceServer();
  const link = new ModelLink();
  const store = new MemoryStore();
  const relists: string[] = [];
  const start = () => {
    const sharing = new SharingSource({
      source: server,
      reviewer: server,
      link,
      clock,
      log: silentLog,
      onBytes: () => {},
    });
    const scopes = new Scopes(
      {
        store,
        source: sharing,
        link,
        clock,
        log: silentLog,
        random: () => 0.5,
        countList: (reason) => relists.push(reason),
        limits: {
          scopeMaxItems: 1_000,
          scopeMaxBytes: 1e6,
          ringMaxEvents: 200,
          ringMaxBytes: 1e6,
          lingerMs: 300_000,
          bookmarkIntervalMs: 45_000,
          ...limits,
        },
      },
      { retentionMs: 1e9, maxScopes: 50 },
    );
    sharing.serve(scopes);
    return { sharing, scopes };
  };
  const { sharing, scopes } = start();
  const identity = (principal: string, changes: Partial<ScopeIdentity> = {}): ScopeIdentity => ({
    principal,
    group: "",
    version: "v1",
    resource: "services",
    namespace: "",
    fieldSelector: "",
    labelSelector: "",
    representation: "json",
    ...changes,
  });
  const followIn =
    (among: Scopes) =>
    async (principal: string, changes: Partial<ScopeIdentity> = {}) => {
      const scope = among.open(identity(principal, changes))!;
      const { received, detach } = await watch(scope, "");
      return { scope, received, detach };
    };
  const follow = followIn(scopes);
  /** Another process on the same rows. */
  const restart = () => {
    sharing.close();
    scopes.close();
    const next = start();
    return { ...next, follow: followIn(next.scopes) };
  };
  const watch = async (scope: Scope, resourceVersion: string) => {
    const received = new Received();
    const detach = await scope.watch(
      { resourceVersion, sendInitialEvents: resourceVersion === "", allowBookmarks: true, timeoutMs: 1e9 },
      () => received,
    );
    await settle();
    return { received, detach };
  };
  const cut = async () => {
    server.isReachable = false;
    link.turn(false);
    server.breakWatches();
    await settle();
  };
  const heal = () => {
    server.isReachable = true;
    link.turn(true);
  };
  return { clock, server, link, store, relists, sharing, scopes, follow, restart, watch, cut, heal };
}

/** Events without bookmarks. */
export function changesOf(received: Received): string[] {
  return received.events.filter((event) => !event.startsWith("BOOKMARK"));
}
