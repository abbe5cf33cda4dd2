/**
 * A world for scopes without sockets or time: an API server of a few lines, a
 * link that is a switch, a clock that moves when told.
 */

import type { Clock } from "../../src/base/clock.ts";
import { silentLog } from "../../src/base/log.ts";
import { Scopes } from "../../src/cache/scopes.ts";
import { readList, readWatch, type WireAnswer } from "../../src/uplink/read-answer.ts";
import {
  UnreachableError,
  type LinkView,
  type ListPage,
  type ScopeSource,
  type WatchStart,
  type WatchStream,
} from "../../src/uplink/scope-source.ts";
import type { WatchSink } from "../../src/cache/frames.ts";
import type { Scope } from "../../src/cache/scope.ts";
import type { ScopeLimits } from "../../src/cache/scope-parts.ts";
import type { ScopeIdentity } from "../../src/store/contract.ts";
import { MemoryStore } from "./memory-store.ts";

/** Time that passes only when `pass` is called. */
export class ManualClock implements Clock {
  #nowMs = 1_000_000;
  /** How far the wall clock is off; timers and monotonic time do not care. */
  wallShiftMs = 0;
  #tasks: { atMs: number; task: () => void }[] = [];

  nowMs(): number {
    return this.#nowMs + this.wallShiftMs;
  }

  monotonicMs(): number {
    return this.#nowMs;
  }

  after(delayMs: number, task: () => void): () => void {
    const entry = { atMs: this.#nowMs + delayMs, task };
    this.#tasks.push(entry);
    return () => {
      this.#tasks = this.#tasks.filter((other) => other !== entry);
    };
  }

  /** Lets time pass, running what falls due in order, and lets promises settle in between. */
  async pass(ms: number): Promise<void> {
    const untilMs = this.#nowMs + ms;
    for (;;) {
      await settle();
      const due = this.#tasks.filter(({ atMs }) => atMs <= untilMs).sort((a, b) => a.atMs - b.atMs)[0];
      if (due === undefined) break;
      this.#tasks = this.#tasks.filter((other) => other !== due);
      this.#nowMs = Math.max(this.#nowMs, due.atMs);
      due.task();
    }
    this.#nowMs = untilMs;
    await settle();
  }
}

/** Lets everything that waits for a resolved promise run. */
export async function settle(): Promise<void> {
  for (let i = 0; i < 20; i++) await new Promise((resolve) => setImmediate(resolve));
}

interface Stored {
  name: string;
  uid: string;
  resourceVersion: number;
  value: string;
}

interface ModelWatch {
  from: number;
  push: (text: string) => void;
  end: (error?: Error) => void;
}

/** What this model's collection is asked for as. */
export const CONFIG_MAPS = { group: "", version: "v1", resource: "configmaps" };

/** One collection of ConfigMaps with its history. */
export class ModelServer implements ScopeSource {
  revision = 100;
  compactedTo = 0;
  lists = 0;
  watches: ModelWatch[] = [];
  watchRequests: string[] = [];
  /** How long each was asked to last. */
  watchSeconds: number[] = [];
  isReachable = true;
  refuse: { status: number; reason: string } | undefined;
  #objects = new Map<string, Stored>();
  #events: { revision: number; type: string; object: Stored }[] = [];
  #uid = 0;

  put(name: string, value: string): Stored {
    const old = this.#objects.get(name);
    const object = { name, uid: old?.uid ?? `uid-${++this.#uid}`, resourceVersion: ++this.revision, value };
    this.#objects.set(name, object);
    this.#record(old === undefined ? "ADDED" : "MODIFIED", object);
    return object;
  }

  remove(name: string): void {
    const old = this.#objects.get(name);
    if (old === undefined) return;
    this.#objects.delete(name);
    this.#record("DELETED", { ...old, resourceVersion: ++this.revision });
  }

  names(): string[] {
    return [...this.#objects.keys()].sort();
  }

  compact(): void {
    this.compactedTo = this.revision;
    this.#events = [];
  }

  /** Back to a revision as a backup restores it: what was written since is undone and forgotten. */
  restore(revision: number, objects: readonly string[]): void {
    for (const name of [...this.#objects.keys()]) if (!objects.includes(name)) this.#objects.delete(name);
    this.revision = revision;
    this.#events = [];
    this.breakWatches();
  }

  breakWatches(): void {
    for (const watch of this.watches.splice(0)) watch.end(new UnreachableError("reset"));
  }

  hasCredential(): boolean {
    return true;
  }

  /** The whole list as it is now. */
  listText(): string {
    const items = [...this.#objects.values()].sort((a, b) => (a.name < b.name ? -1 : 1)).map(bareText);
    return `{"kind":"ConfigMapList","apiVersion":"v1","metadata":{"resourceVersion":"${this.revision}"},"items":[${items.join(",")}]}\n`;
  }

  async list(): Promise<ListPage> {
    return readList(this.#list(), CONFIG_MAPS);
  }

  #list(): WireAnswer {
    this.lists++;
    if (!this.isReachable) throw new UnreachableError("cut");
    if (this.refuse !== undefined)
      return answer(this.refuse.status, [`{"kind":"Status","apiVersion":"v1","reason":"${this.refuse.reason}"}`]);
    return answer(200, [this.listText()]);
  }

  async watch(
    _identity: ScopeIdentity,
    { resourceVersion, shape }: WatchStart,
    timeoutSeconds: number,
    signal: AbortSignal,
  ): Promise<WatchStream> {
    return readWatch(this.#watch(resourceVersion, timeoutSeconds, signal), CONFIG_MAPS, shape);
  }

  #watch(resourceVersion: string, timeoutSeconds: number, signal: AbortSignal): WireAnswer {
    this.watchRequests.push(resourceVersion);
    this.watchSeconds.push(timeoutSeconds);
    if (!this.isReachable) throw new UnreachableError("cut");
    if (this.refuse !== undefined)
      return answer(this.refuse.status, [`{"kind":"Status","apiVersion":"v1","reason":"${this.refuse.reason}"}`]);
    const from = Number(resourceVersion);
    if (from < this.compactedTo)
      return answer(410, ['{"kind":"Status","apiVersion":"v1","reason":"Expired","code":410}']);
    const queue: string[] = this.#events.filter((event) => event.revision > from).map(eventText);
    let wake: () => void = () => {};
    let over: { error?: Error } | undefined;
    const watch: ModelWatch = {
      from,
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
    return {
      status: 200,
      header: (name) => (name === "content-type" ? "application/json" : undefined),
      chunks: chunks(),
    };
  }

  #record(type: string, object: Stored): void {
    const event = { revision: this.revision, type, object };
    this.#events.push(event);
    for (const watch of this.watches) if (event.revision > watch.from) watch.push(eventText(event));
  }
}

function bareText({ name, uid, resourceVersion, value }: Stored): string {
  return `{"metadata":{"name":"${name}","namespace":"shop","uid":"${uid}","resourceVersion":"${resourceVersion}"},"data":{"value":"${value}"}}`;
}

function eventText({ type, object }: { type: string; object: Stored }): string {
  return `{"type":"${type}","object":{"kind":"ConfigMap","apiVersion":"v1",${bareText(object).slice(1)}}\n`;
}

/** An answer of the API server in these pieces. */
export function answer(status: number, parts: readonly string[]): WireAnswer {
  async function* chunks(): AsyncGenerator<Uint8Array> {
    for (const part of parts) yield Buffer.from(part);
  }
  return {
    status,
    header: (name) => (name === "content-type" ? "application/json" : undefined),
    chunks: chunks(),
  };
}

/** A link that is a switch. */
export class ModelLink implements LinkView {
  readonly patienceMs = 1_800;
  #isOnline = true;
  #listeners = new Set<(isOnline: boolean) => void>();

  isOnline(): boolean {
    return this.#isOnline;
  }

  suspect(): void {}

  onChange(listener: (isOnline: boolean) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  turn(isOnline: boolean): void {
    this.#isOnline = isOnline;
    for (const listener of [...this.#listeners]) listener(isOnline);
  }
}

/** What a local watcher received, "TYPE name@resourceVersion". */
export class Received implements WatchSink {
  readonly events: string[] = [];
  isEnded = false;
  isStuck = false;
  #resume: () => void = () => {};

  write(bytes: Uint8Array): boolean {
    for (const line of Buffer.from(bytes).toString("utf8").split("\n")) {
      if (line === "") continue;
      const { type, object } = JSON.parse(line);
      this.events.push(
        type === "ERROR"
          ? `ERROR ${object.code}`
          : `${type} ${object.metadata.name ?? ""}@${object.metadata.resourceVersion}`,
      );
    }
    return !this.isStuck;
  }

  onDrain(resume: () => void): void {
    this.#resume = resume;
  }

  drain(): void {
    this.isStuck = false;
    this.#resume();
  }

  end(): void {
    this.isEnded = true;
  }
}

/** The bounds of a model's scopes. */
export const MODEL_LIMITS: ScopeLimits = {
  scopeMaxItems: 1_000,
  scopeMaxBytes: 1e6,
  ringMaxEvents: 100,
  ringMaxBytes: 1e6,
  lingerMs: 300_000,
  bookmarkIntervalMs: 45_000,
};

/** Everything together. */
export function startModel(limits: Partial<ScopeLimits> = {}) {
  const clock = new ManualClock();
  const server = new ModelServer();
  const link = new ModelLink();
  const store = new MemoryStore();
  const parts = {
    store,
    source: server,
    link,
    clock,
    log: silentLog,
    random: () => 0.5,
    countList: () => {},
    limits: { ...MODEL_LIMITS, ...limits },
  };
  const identity: ScopeIdentity = {
    principal: "token:x",
    group: "",
    version: "v1",
    resource: "configmaps",
    namespace: "shop",
    fieldSelector: "",
    labelSelector: "",
    representation: "json",
  };
  const open = (fieldSelector = "", retentionMs = 1e9) => {
    const scopes = new Scopes(parts, { retentionMs, maxScopes: 10 });
    return { scopes, scope: scopes.open({ ...identity, fieldSelector })! };
  };
  const cut = () => {
    server.isReachable = false;
    link.turn(false);
    server.breakWatches();
  };
  const heal = () => {
    server.isReachable = true;
    link.turn(true);
  };
  const watch = async (
    scope: Scope,
    resourceVersion: string,
    options: { readonly stream?: boolean; readonly bookmarks?: boolean } = {},
  ) => {
    const received = new Received();
    const detach = await scope.watch(
      {
        resourceVersion,
        sendInitialEvents: options.stream === true,
        allowBookmarks: options.bookmarks ?? true,
        timeoutMs: 3_600_000,
      },
      () => received,
    );
    await settle();
    return { received, detach };
  };
  return { clock, server, link, store, parts, open, cut, heal, watch };
}
