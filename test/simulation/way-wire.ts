/**
 * The API server as Holdfast's uplink meets it: requests by method, target and
 * credential, answers as heads and bytes, over a link that has its days.
 *
 * Beside what `network.ts` does wrong, something else may answer in the API
 * server's place, storage may stand still behind a living API server, and
 * callers may come whom it does not know.
 */

import type { Ending } from "../../src/base/cancel.ts";
import type { UpstreamBody, UpstreamResponse } from "../../src/uplink/upstream-answer.ts";
import type { UpstreamRequest } from "../../src/uplink/upstream.ts";
import type { WireAnswer } from "../../src/uplink/read-answer.ts";
import type { ScopeIdentity } from "../../src/store/contract.ts";
import type { ApiServer } from "./api-server.ts";
import type { Network } from "./network.ts";

/** What stands between, or behind. */
export interface WayMood {
  /** Requests left that a login page answers, or a proxy's 404. */
  foreign: { readonly status: number; left: number };
  /** etcd is frozen: what needs it waits, what does not is answered. */
  isFrozen: boolean;
}

/** A request of one principal, as the API server understands it. */
export interface Asked {
  readonly principal: string;
  readonly method: string;
  readonly path: string;
  readonly query: URLSearchParams;
  readonly body: string;
}

const STATUS = (code: number, reason: string) =>
  `{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"${reason}","reason":"${reason}","code":${code}}`;
const VERSION = '{"major":"1","minor":"37","gitVersion":"v1.37.2","platform":"linux/amd64"}';
/** kube-apiserver's own. */
const REQUEST_TIMEOUT_MS = 60_000;
const LOGIN_PAGE = "<!DOCTYPE html><html><body>Please sign in</body></html>";

/** Told of what the API server's answers say of a principal, as they reach Holdfast. */
export interface Heard {
  unauthorized(principal: string): void;
  accepted(principal: string): void;
  allowed(principal: string, resource: string): void;
}

/** Answers what Holdfast sends up. */
export class Wire {
  readonly mood: WayMood = { foreign: { status: 200, left: 0 }, isFrozen: false };
  /** Principals the API server knows. */
  readonly known: ReadonlySet<string>;
  readonly #thawed = new Set<() => void>();

  constructor(
    private readonly network: Network,
    private readonly server: ApiServer,
    principals: Iterable<string>,
    /** The resourceVersion that is held of a collection now. */
    private readonly heldOf: (identity: ScopeIdentity) => string | undefined,
    /** A list that Holdfast makes for itself. @param held when it began to ask. */
    private readonly onScopeList: (identity: ScopeIdentity, held: string | undefined) => void,
    private readonly heard: Heard,
    private readonly onWrite: (asked: Asked) => { readonly status: number; readonly text: string },
  ) {
    this.known = new Set(principals);
  }

  /** Storage answers again. */
  thaw(): void {
    this.mood.isFrozen = false;
    const waiting = [...this.#thawed];
    this.#thawed.clear();
    for (const go of waiting) go();
  }

  /** In the place of `Upstream`'s network. */
  async send(request: UpstreamRequest): Promise<UpstreamResponse> {
    const url = new URL(`https://api${request.target}`);
    const asked: Asked = {
      principal: (request.credential.authorization ?? "").replace(/^Bearer /, "token:"),
      method: request.method,
      path: url.pathname,
      query: url.searchParams,
      body: request.body === undefined ? "" : Buffer.from(request.body as Uint8Array).toString("utf8"),
    };
    const collection = identityOf(asked)?.collection;
    const held = collection === undefined ? undefined : this.heldOf(collection);
    const { foreign } = this.mood;
    if (foreign.left > 0 && this.network.mode === "up") {
      foreign.left--;
      const answer = await this.#say(asked, { status: foreign.status, text: LOGIN_PAGE }, request.signal);
      return responseOf(answer, { "content-type": "text/html" });
    }
    const isThere = this.mood.isFrozen && asked.path !== "/version" ? await this.#frozen(request.signal) : true;
    if (!isThere) {
      const late = { status: 504, text: STATUS(504, "Timeout") };
      return responseOf(await this.#say(asked, late, request.signal), {
        "content-type": "application/json",
        "audit-id": "1",
      });
    }
    const answer = await this.#answer(asked, request, held);
    if (answer.status === 401) this.heard.unauthorized(asked.principal);
    else if (asked.path !== "/version") this.heard.accepted(asked.principal);
    return responseOf(answer, { "content-type": "application/json", "audit-id": "1" });
  }

  /** @returns false when the API server's own patience ended. */
  #frozen(signal: Ending): Promise<boolean> {
    const { promise, resolve, reject } = Promise.withResolvers<boolean>();
    const go = () => resolve(true);
    this.network.clock.after(REQUEST_TIMEOUT_MS, () => this.#thawed.delete(go) && resolve(false));
    this.#thawed.add(go);
    signal.addEventListener("abort", () => {
      this.#thawed.delete(go);
      reject(new Error("aborted"));
    });
    return promise;
  }

  #answer(asked: Asked, request: UpstreamRequest, held: string | undefined): Promise<WireAnswer> {
    const { principal, method, path, query } = asked;
    const { signal } = request;
    if (path === "/version") return this.#say(asked, { status: 200, text: VERSION }, signal);
    if (path === "/livez") return this.#say(asked, { status: 200, text: "ok" }, signal);
    if (!this.known.has(principal) || this.server.isUnauthorized(principal))
      return this.#say(asked, { status: 401, text: STATUS(401, "Unauthorized") }, signal);
    if (path.endsWith("selfsubjectreviews")) {
      const text = `{"kind":"SelfSubjectReview","apiVersion":"authentication.k8s.io/v1","status":{"userInfo":{"username":"${principal}"}}}`;
      return this.#say(asked, { status: 201, text }, signal);
    }
    if (path.endsWith("selfsubjectaccessreviews")) return this.#review(asked, signal);
    const identity = identityOf(asked);
    if (identity === undefined) return this.#say(asked, { status: 404, text: STATUS(404, "NotFound") }, signal);
    const { collection, name } = identity;
    if (method !== "GET") return this.network.write(collection, () => this.onWrite(asked), signal);
    if (name !== "") return this.network.get(collection, collection.namespace, name, signal);
    const isOwn = request.headers.some(
      ([key, value]) => key.toLowerCase() === "user-agent" && value === "holdfast/sim",
    );
    if (query.get("watch") === "true") {
      const seconds = Number(query.get("timeoutSeconds") ?? "300");
      return this.network.watch(collection, query.get("resourceVersion") ?? "", seconds, signal);
    }
    const page = { limit: Number(query.get("limit") ?? "0"), continueToken: query.get("continue") ?? "" };
    // A list of one is a look whether a refusal still stands.
    if (isOwn && page.limit !== 1 && page.continueToken === "") this.onScopeList(collection, held);
    return this.network.list(collection, page, query.get("resourceVersion") ?? "", signal);
  }

  async #review(asked: Asked, signal: Ending): Promise<WireAnswer> {
    const { resource } = JSON.parse(asked.body).spec.resourceAttributes as { resource: string };
    let isAllowed = false;
    const apply = () => {
      isAllowed = this.server.refusalOf(asked.principal, resource) === undefined;
      return {
        status: 201,
        text: `{"kind":"SelfSubjectAccessReview","apiVersion":"authorization.k8s.io/v1","status":{"allowed":${isAllowed}}}`,
      };
    };
    const answer = await this.network.write(NOWHERE, apply, signal);
    if (isAllowed) this.heard.allowed(asked.principal, resource);
    return answer;
  }

  #say(_asked: Asked, reply: { readonly status: number; readonly text: string }, signal: Ending): Promise<WireAnswer> {
    return this.network.write(NOWHERE, () => reply, signal);
  }
}

/** A request that no permission of the model is about. */
const NOWHERE: ScopeIdentity = {
  principal: "",
  group: "",
  version: "v1",
  resource: "",
  namespace: "",
  fieldSelector: "",
  labelSelector: "",
  representation: "json",
};

/** The collection, and the object in it, that a path names. */
export function identityOf({
  principal,
  path,
  query,
}: Pick<Asked, "principal" | "path" | "query">):
  { readonly collection: ScopeIdentity; readonly name: string } | undefined {
  const [, namespace = "", resource, name = ""] =
    /^\/api\/v1(?:\/namespaces\/([^/]+))?\/(pods|configmaps|nodes)(?:\/([^/]+))?$/.exec(path) ?? [];
  if (resource === undefined) return undefined;
  const collection = {
    ...NOWHERE,
    principal,
    resource,
    namespace,
    fieldSelector: query.get("fieldSelector") ?? "",
    labelSelector: query.get("labelSelector") ?? "",
  };
  return { collection, name };
}

function responseOf({ status, chunks }: WireAnswer, fields: Readonly<Record<string, string>>): UpstreamResponse {
  const iterator = chunks[Symbol.asyncIterator]();
  const body: UpstreamBody = {
    [Symbol.asyncIterator]: () => iterator,
    getReader: () => ({
      read: async () => {
        const { done, value } = await iterator.next();
        return done === true ? { done: true } : { done: false, value };
      },
      cancel: async () => void iterator.return?.(),
    }),
    cancel: () => void iterator.return?.(),
  };
  return {
    status,
    headers: { get: (name) => fields[name.toLowerCase()] ?? null, toJSON: () => ({ ...fields }) },
    body,
    bytes: async () => {
      const parts: Uint8Array[] = [];
      for await (const part of body) parts.push(part);
      return new Uint8Array(Buffer.concat(parts));
    },
  };
}
