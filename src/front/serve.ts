/**
 * Answers from what is kept: lists, watches, objects and recorded answers.
 */

import { Buffer } from "node:buffer";
import { listPieces } from "../cache/list-copy.ts";
import type { Scope, WatchRequest } from "../cache/scope.ts";
import { isKeptAs, type FoundObject, type Scopes } from "../cache/scopes.ts";
import type { WatchSink } from "../cache/frames.ts";
import { prefersYaml } from "../kube/representation.ts";
import type { Codec } from "../kube/codec.ts";
import { compareResourceVersions } from "../kube/resource-version.ts";
import { StatusError, badRequest, expired, resourceVersionTooLarge, unavailable } from "../kube/status-error.ts";
import type { ScopeIdentity, StoredResponse } from "../store/contract.ts";
import { breakOff, writePieces } from "./answer.ts";
import type { Exchange } from "./exchange.ts";
import type { Recordings } from "./recordings.ts";
import type { Caller } from "../callers/identify.ts";
import { flag, type RequestInfo } from "./request-info.ts";

/** Serves kept copies. */
export class CopyServer {
  constructor(
    private readonly scopes: Scopes,
    private readonly recordings: Recordings,
    private readonly random: () => number,
    private readonly count: (what: "servedFromCache") => void,
  ) {}

  /** The scope that answers a list for these representations, best first: the asked one, else any of the same selectors that the client can read. */
  scopeFor(identity: ScopeIdentity, exchange: Exchange): Scope | undefined {
    const exact = this.scopes.find(identity);
    if (exact?.listed !== undefined) return exact;
    for (const representation of exchange.accepted) {
      for (const scope of this.scopes.of(identity.principal, identity.group, identity.version, identity.resource)) {
        const { namespace, fieldSelector, labelSelector } = scope.identity;
        if (
          namespace !== identity.namespace ||
          fieldSelector !== identity.fieldSelector ||
          labelSelector !== identity.labelSelector
        )
          continue;
        const { listed } = scope;
        if (listed === undefined || !isKeptAs(listed, representation)) continue;
        if (representation.as !== "Table" || includeObjectOf(scope.identity) === includeObjectOf(identity))
          return scope;
      }
    }
    return exact;
  }

  /**
   * A whole list from a scope.
   *
   * @throws {StatusError} 410, 504 or 503 as the copy cannot answer what was asked.
   */
  async list(exchange: Exchange, info: RequestInfo, scope: Scope | undefined): Promise<void> {
    using snapshot = scope?.snapshot();
    if (scope === undefined || snapshot === undefined) throw neverListed(info);
    const { listed } = snapshot;
    checkListOptions(info, listed.resourceVersion);
    this.count("servedFromCache");
    const codec = scope.codec(listed);
    const { response } = exchange;
    response.writeHead(200, { "Content-Type": typeFor(exchange, codec), "Cache-Control": "no-cache, private" });
    try {
      if (await writePieces(exchange, listPieces(codec, snapshot, listed.resourceVersion))) response.end();
    } catch {
      // A damaged row: the client must not take a part for the whole.
      breakOff(exchange);
    }
  }

  /** A watch of a scope, until the client leaves, time is up or the scope ends it. */
  async watch(exchange: Exchange, info: RequestInfo, scope: Scope): Promise<void> {
    const { response, signal } = exchange;
    const codecType = () => scope.codec(scope.listed!).watchContentType;
    const detach = await scope.watch(this.#watchRequest(info), (): WatchSink => {
      response.writeHead(200, { "Content-Type": codecType(), "Cache-Control": "no-cache, private" });
      response.flushHeaders();
      return {
        write: (bytes) => response.write(bytes),
        onDrain: (resume) => void response.on("drain", resume),
        end: () => void response.end(),
      };
    });
    if (signal.aborted) return detach();
    signal.addEventListener("abort", detach, { once: true });
  }

  #watchRequest({ query }: RequestInfo): WatchRequest {
    const seconds = query.get("timeoutSeconds");
    if (seconds !== null && !/^[0-9]{1,9}$/.test(seconds))
      throw badRequest(`Invalid value: "${seconds.slice(0, 64)}": timeoutSeconds is not a whole number`);
    // As the API server: half an hour at least when the client does not say.
    const timeoutMs =
      seconds === null || Number(seconds) === 0 ? (1_800 + this.random() * 1_800) * 1_000 : Number(seconds) * 1_000;
    return {
      resourceVersion: query.get("resourceVersion") ?? "",
      sendInitialEvents: flag(query, "sendInitialEvents") === true,
      allowBookmarks: flag(query, "allowWatchBookmarks") === true,
      timeoutMs: Math.min(timeoutMs, 2 ** 31 - 1),
    };
  }

  /** One object from a scope, if it is kept and what is kept is not older than asked. */
  findObject(
    exchange: Exchange,
    info: RequestInfo,
    caller: Caller,
    isUsable: (scope: Scope) => boolean,
  ): FoundObject | undefined {
    const { group, version, resource, name } = info;
    const namespace = resource === "namespaces" ? "" : info.namespace;
    const included = info.query.get("includeObject") ?? "Metadata";
    const notBefore = info.query.get("resourceVersion") ?? "";
    return this.scopes.findObject(
      { principal: caller.principal, group, version, resource, namespace, name },
      exchange.accepted,
      (scope) =>
        isUsable(scope) &&
        vouchesFor(scope.servedVersion, notBefore) &&
        (scope.listed?.shape.listKind !== "Table" || includeObjectOf(scope.identity) === included),
    );
  }

  /** Answers with an object from a scope. */
  object(exchange: Exchange, { scope, listed, item }: FoundObject): void {
    this.count("servedFromCache");
    scope.use();
    const codec = scope.codec(listed);
    const body = codec.single(listed.shape, item.bytes);
    exchange.response.writeHead(200, {
      "Content-Type": typeFor(exchange, codec),
      "Content-Length": body.length,
      "Cache-Control": "no-cache, private",
    });
    exchange.response.end(body);
  }

  /**
   * What answers a GET while offline: the object from a scope or a recorded answer, whichever was heard last.
   *
   * @param doubtedAtMs recordings of objects up to then do not count.
   */
  kept(
    exchange: Exchange,
    info: RequestInfo,
    caller: Caller,
    isObject: boolean,
    doubtedAtMs = 0,
  ): FoundObject | StoredResponse | undefined {
    // What a recording says of its object's age is not read: it vouches for no moment.
    const isRecent = !isObject || vouchesFor("0", info.query.get("resourceVersion") ?? "");
    const known = isRecent ? this.recordings.find(exchange, info, caller.principal) : undefined;
    const recorded = info.resource !== "" && (known?.storedAtMs ?? 0) <= doubtedAtMs ? undefined : known;
    if (!isObject) return recorded;
    const found = this.findObject(exchange, info, caller, () => true);
    if (recorded === undefined) return found;
    if (found?.scope.isItemEdited(found.item.meta.namespace, found.item.meta.name) === true) return found;
    if (found !== undefined) return found.listed.lastContactMs >= recorded.storedAtMs ? found : recorded;
    return this.#wasSeenGone(info, caller, recorded.storedAtMs) ? undefined : recorded;
  }

  /** Answers with a recording. */
  recorded(exchange: Exchange, response: StoredResponse): void {
    this.count("servedFromCache");
    const { etag } = response.headers;
    if (etag !== undefined && exchange.header("if-none-match") === etag) {
      exchange.response.writeHead(304, { ETag: etag });
      exchange.response.end();
      return;
    }
    exchange.response.writeHead(response.status, {
      ...response.headers,
      "content-length": String(response.body.length),
    });
    exchange.response.end(response.body);
  }

  /** A complete list that was heard from after the recording no longer has the object. */
  #wasSeenGone(info: RequestInfo, caller: Caller, recordedAtMs: number): boolean {
    const namespace = info.resource === "namespaces" ? "" : info.namespace;
    for (const scope of this.scopes.of(caller.principal, info.group, info.version, info.resource)) {
      const { fieldSelector, labelSelector } = scope.identity;
      const covers =
        (scope.identity.namespace === "" || scope.identity.namespace === namespace) &&
        labelSelector === "" &&
        (fieldSelector === "" || fieldSelector === `metadata.name=${info.name}`);
      if (covers && (scope.listed?.lastContactMs ?? 0) > recordedAtMs && scope.row(namespace, info.name) === undefined)
        return true;
    }
    return false;
  }
}

/** JSON is YAML, and whoever wants that alone is told that it is. */
function typeFor(exchange: Exchange, { contentType }: Codec): string {
  return contentType === "application/json" && prefersYaml(exchange.header("accept"))
    ? "application/yaml"
    : contentType;
}

/** Holds a list's options against the resourceVersion that is kept. */
function checkListOptions({ query }: RequestInfo, held: string): void {
  const resourceVersion = query.get("resourceVersion") ?? "";
  const match = query.get("resourceVersionMatch") ?? "";
  if ((query.get("continue") ?? "") !== "")
    throw expired(
      "The provided continue parameter is too old: the pages it belongs to are not kept while the API server cannot be reached; list again without it",
    );
  const isKnownMatch = match === "" || match === "NotOlderThan" || (match === "Exact" && resourceVersion !== "0");
  if (query.has("sendInitialEvents") || (match !== "" && resourceVersion === "") || !isKnownMatch) {
    throw new StatusError({
      code: 422,
      reason: "Invalid",
      message:
        'ListOptions.meta.k8s.io is invalid: resourceVersionMatch is Exact or NotOlderThan, forbidden without resourceVersion, and Exact for resourceVersion "0"; sendInitialEvents is forbidden for list',
    });
  }
  if (resourceVersion === "" || resourceVersion === "0") return;
  if (!/^[1-9][0-9]*$/.test(resourceVersion))
    throw badRequest(`Invalid value: "${resourceVersion.slice(0, 64)}": resourceVersion is not a decimal number`);
  const order = compareResourceVersions(resourceVersion, held);
  const isExact = match === "Exact" || (match === "" && (query.get("limit") ?? "0") !== "0");
  if (isExact && order < 0) throw expired(`too old resource version: ${resourceVersion} (${held})`);
  if (order > 0) throw resourceVersionTooLarge(resourceVersion, held);
}

/** Whether what stands at one resourceVersion is not older than another, as asked for: "" and "0" ask for nothing. */
function vouchesFor(held: string, asked: string): boolean {
  if (asked === "" || asked === "0") return true;
  return /^[1-9][0-9]*$/.test(asked) && compareResourceVersions(held, asked) >= 0;
}

/** What a Table's rows carry of their objects. */
function includeObjectOf({ representation }: ScopeIdentity): string {
  return representation.split(";includeObject=")[1] ?? "Metadata";
}

function neverListed({ resource, group, namespace }: RequestInfo): StatusError {
  const what = `${resource}${group === "" ? "" : `.${group}`}${namespace === "" ? "" : ` in namespace "${namespace}"`}`;
  return unavailable(
    `Cannot list ${what}: the API server cannot be reached and this caller's list was never observed here`,
  );
}

/** The bytes of a recording, as the tap hands them over. */
export function decodeBody(bytes: Uint8Array, encoding: string | null): Uint8Array | undefined {
  if (encoding === null || encoding === "identity") return bytes;
  if (encoding === "gzip") return Bun.gunzipSync(Buffer.from(bytes));
  return undefined;
}
