/**
 * A Kubernetes API server to try things on: it keeps its objects in memory and
 * follows the real server's rules for list, watch, write and refusal, and it
 * can be made to fail in every way the real one and its network do.
 *
 *   await using api = await startApiServer({ objects: [pod] });
 *   api.url, api.cluster.ca                    where it is and what to trust
 *   api.cluster.clientCertificate("system:node:edge-1", ["system:nodes"])
 *   api.kubeconfig({ user: "admin" })          a client certificate, inline
 *   api.addToken("secret", { name: "demo", groups: [] })
 *   api.put(object), api.remove("Pod", "shop", "web-0"), api.object(...)
 *   await api.cut(), api.blackHole(), await api.heal()
 *   api.nextStatus({ code: 429, retryAfterSeconds: 1 }, { verb: "list" })
 *   api.count({ verb: "list", resource: "pods" }, since)
 *
 * Everything goes over one TCP relay (link.ts) in front of the server itself,
 * so that a cut, a silence and the bytes on the wire are the network's doing.
 * HTTP/1.1 and HTTP/2; client certificates and bearer tokens; 401 otherwise.
 *
 * Its answers never pass through the product's codecs: what it prints is
 * independent evidence, and test/contract holds it against a real server.
 */

import type { ForeignAnswer, Match, ScriptedStatus } from "./faults.ts";
import type { Link } from "./link.ts";
import type { Cluster, KubeconfigOptions } from "./mint.ts";
import type { RequestInfo, User } from "./request.ts";
import type { Authorize } from "./reviews.ts";
import type { JsonObject } from "./schema.ts";
import { Server } from "./server.ts";
import type { Behaviour } from "./world.ts";

/** How a server is to be; every field has a default that a test can live with. */
export interface ApiServerOptions extends Partial<Behaviour> {
  /** 127.0.0.1 and a free port by default. */
  readonly host?: string;
  readonly port?: number;
  /** The CA; a fresh one by default. Two servers of one cluster share it. */
  readonly cluster?: Cluster;
  /** Names in the serving certificate besides localhost, the loopback addresses and `host`. */
  readonly servingNames?: readonly string[];
  /** Bearer tokens; addToken adds more. */
  readonly tokens?: Readonly<Record<string, User>>;
  /** true: requests without a credential are system:anonymous and go to `authorize`; false (default): 401, except health and /version. */
  readonly allowsAnonymous?: boolean;
  /** The stand-in's RBAC; everything is allowed by default. */
  readonly authorize?: Authorize;
  /** Written before the first request, each as `put` does. The four system namespaces and every namespace named are there. */
  readonly objects?: readonly JsonObject[];
  /** The counter's start; 1000. */
  readonly firstResourceVersion?: number;
  /** How much history a watch can resume from: 10,000 changes and 5 minutes. */
  readonly history?: { readonly changes?: number; readonly ageMs?: number };
  /** A container's log; one line naming the pod by default. */
  readonly logs?: (namespace: string, pod: string) => readonly string[];
}

/** One request as the server saw it. */
export interface LoggedRequest extends RequestInfo {
  readonly method: string;
  readonly target: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly httpVersion: string;
  /** "" until authenticated. */
  user: string;
  /** 0 until answered. */
  status: number;
  readonly startedAtMs: number;
  /** Body bytes of the answer so far. */
  readonly bytesSent: number;
}

/** A running server. Disposing it ends everything it holds. */
export interface ApiServer extends AsyncDisposable {
  readonly url: string;
  readonly host: string;
  readonly port: number;
  readonly cluster: Cluster;
  /** The wire in front of it: latency, bandwidth, bytes counted, connections. */
  readonly link: Link;
  /** May be changed while it runs. */
  readonly behaviour: Behaviour;
  authorize: Authorize;
  /** Every request, oldest first; the last 20,000. */
  readonly requests: readonly LoggedRequest[];
  /** The revision of the last write. */
  readonly resourceVersion: string;
  /** Live watches. */
  readonly watchCount: number;

  kubeconfig(options: Omit<KubeconfigOptions, "server"> & { readonly server?: string }): string;
  addToken(token: string, user: User): void;
  /** A real service-account token, as the account's `token` subresource would return it. */
  serviceAccountToken(
    namespace: string,
    name: string,
    expirationSeconds?: number,
    more?: { readonly pod?: { readonly name: string; readonly uid: string }; readonly audiences?: readonly string[] },
  ): string;

  /** Creates or replaces an object, status and all. @returns it as stored. */
  put(object: JsonObject): JsonObject;
  /** As `put`, of the object's present state with `change` merged at the top level of each field. */
  edit(kind: string, namespace: string, name: string, change: (object: JsonObject) => JsonObject): JsonObject;
  /** Deletes at once. @returns whether there was one. */
  remove(kind: string, namespace: string, name: string): boolean;
  object(kind: string, namespace: string, name: string): JsonObject | undefined;
  objects(kind: string): JsonObject[];
  /** How many logged requests match, from `since` (an index into `requests`, or 0). */
  count(match: Match, since?: number): number;

  /** Resets every connection and refuses new ones. */
  cut(): Promise<void>;
  /** Connections stay, nothing moves. */
  blackHole(): void;
  /** Undoes cut, blackHole, slow and every order not yet taken. */
  heal(): Promise<void>;
  /** The next `times` matching requests get this answer. */
  nextStatus(status: ScriptedStatus, match?: Match, times?: number): void;
  /** Something else answers for it: matching requests, for good or the next `times`. */
  answerInstead(answer: ForeignAnswer, match?: Match, times?: number): void;
  /** etcd stops answering: what needs it waits for `heal`; watches, discovery, health and lists "any" go on. */
  freezeStorage(): void;
  /** The next `times` matching answers stop for good in the middle of their body, the connection open. */
  stallMidBody(match?: Match, times?: number): void;
  /** The next matching answer (a LIST by default) breaks off in the middle. */
  truncateNextList(match?: Match): void;
  /** Every matching request waits; 0 ends it, also for those that wait. */
  slow(ms: number, match?: Match): void;
  /** Live watches get half an event, then their connection breaks. @returns how many. */
  cutWatchFrameInHalf(match?: Match): number;
  /** Live watches get bytes that are no event. @returns how many. */
  invalidFrame(match?: Match): number;
  /** Live watches end with an ERROR event. @returns how many. */
  failWatches(
    status?: { readonly code: number; readonly reason: string; readonly message: string },
    match?: Match,
  ): number;
  /** Live watches end cleanly. @returns how many. */
  endWatches(match?: Match): number;
  /** Live watches get a bookmark now. @returns how many. */
  sendBookmarks(match?: Match): number;
  /** Forgets the history: a watch from before now is Expired. */
  compact(): void;
  /** etcd comes back from a backup `changes` writes old; every connection breaks. */
  rollback(changes: number): void;
  /** Stops for good; the same as disposing. */
  stop(): Promise<void>;
}

/** Starts a server. @throws if the port is taken. */
export async function startApiServer(options: ApiServerOptions = {}): Promise<ApiServer> {
  const server = new Server(options);
  await server.start();
  return server;
}
