/**
 * Answers from what is kept: lists, watches, objects and recorded answers.
 */

import type { Clock } from "../base/clock.ts";
import { listPieces } from "../cache/list-copy.ts";
import type { WatchRequest } from "../cache/local-watches.ts";
import type { Scope } from "../cache/scope.ts";
import { askedForms, includedIn } from "../cache/containment.ts";
import type { CopyAnswer } from "../cache/copy-answer.ts";
import type { FoundObject, Scopes } from "../cache/scopes.ts";
import type { WatchSink } from "../cache/frames.ts";
import { mediaType, prefersYaml } from "../kube/representation.ts";
import type { Codec } from "../kube/codec.ts";
import { compareResourceVersions } from "../kube/resource-version.ts";
import { StatusError, badRequest, expired, resourceVersionTooLarge, unavailable } from "../kube/status-error.ts";
import type { ListedState, ScopeIdentity, StoredResponse } from "../store/contract.ts";
import { breakOff, writePieces } from "./answer.ts";
import type { Exchange } from "./exchange.ts";
import { agedResponse, agedRow, agedSnapshot, copyHeaders } from "./as-of-now.ts";
import type { OwnWrites, WrittenWhere } from "../cache/own-writes.ts";
import { askedFor } from "./words.ts";
import type { Recordings } from "./recordings.ts";
import { isGoneBy, metaOfAnswer, newest, wasSeenGone, type Told } from "./told.ts";
import type { Written } from "../cache/written.ts";
import type { Caller } from "../callers/identify.ts";
import { flag, type RequestInfo } from "./request-info.ts";

/** Serves kept copies. */
export class CopyServer {
  constructor(
    private readonly scopes: Scopes,
    private readonly recordings: Recordings,
    private readonly writes: OwnWrites,
    private readonly clock: Clock,
    private readonly random: () => number,
    private readonly count: (what: "servedFromCache") => void,
  ) {}

  /** The copy that vouches for a list or a watch while the API server does not answer. @param at a watch begins there. */
  answerFor(identity: ScopeIdentity, exchange: Exchange, at = ""): CopyAnswer | undefined {
    return this.scopes.answerFor(identity, exchange.accepted, { at });
  }

  /** What a copy answers to what it is of: a live one by itself, another with what the caller's other copies know newer. */
  answerOf(scope: Scope, exchange: Exchange): CopyAnswer {
    const newest = scope.state === "live" ? undefined : this.answerFor(scope.identity, exchange);
    return newest ?? this.scopes.wholeOf(scope);
  }

  /**
   * The caller's own wider copy that is followed anyway and would answer, byte
   * for byte, as the API server: nothing is opened for what lies within it.
   *
   * @param at a watch begins there.
   */
  within(identity: ScopeIdentity, at = ""): CopyAnswer | undefined {
    if (this.scopes.find(identity)?.isFollowing === true) return undefined;
    const answer = this.scopes.answerFor(identity, askedForms(identity).slice(0, 1), {
      at,
      isUsable: (scope) => scope.isCurrent && !scope.hasRolledBack && scope.isWatchedWhole,
    });
    answer?.expectWatch();
    return at === "" || at === "0" || answer?.canTellFrom(at) === true ? answer : undefined;
  }

  /**
   * A whole list from a copy.
   *
   * @param isInstead the API server was asked and has not answered, whatever the copy's watch says.
   * @throws {StatusError} 410, 504 or 503 as the copy cannot answer what was asked.
   */
  async list(exchange: Exchange, info: RequestInfo, answer: CopyAnswer, isInstead = false): Promise<void> {
    using rows = answer.snapshot({ isInstead, isExact: isExactList(info) });
    if (rows === undefined) throw unavailable(`Cannot ${askedFor(info)}: its copy was given up just now`);
    const { listed } = rows;
    checkListOptions(info, listed.resourceVersion);
    this.count("servedFromCache");
    const codec = answer.codec(listed);
    const snapshot = agedSnapshot(rows, this.clock.nowMs());
    const { response } = exchange;
    response.writeHead(200, {
      "Content-Type": typeFor(exchange, codec),
      "Cache-Control": "no-cache, private",
      ...this.#warning(exchange, answer.scope, listed, isInstead),
    });
    try {
      if (await writePieces(exchange, listPieces(codec, snapshot, listed.resourceVersion))) response.end();
    } catch {
      // A damaged row: the client must not take a part for the whole.
      breakOff(exchange);
    }
  }

  /**
   * A watch of a copy, until the client leaves, time is up or the copy ends it.
   *
   * @param isInstead the API server was asked and has not answered.
   */
  async watch(exchange: Exchange, info: RequestInfo, answer: CopyAnswer, isInstead = false): Promise<void> {
    const { response, signal } = exchange;
    const codecType = () => answer.codec(answer.listed!).watchContentType;
    const detach = await answer.watch({ ...this.#watchRequest(info), isInstead }, (): WatchSink => {
      response.writeHead(200, {
        "Content-Type": codecType(),
        "Cache-Control": "no-cache, private",
        ...this.#warning(exchange, answer.scope, answer.listed!),
      });
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

  /** Says since when a copy is one, unless the API server speaks through it now. */
  #warning(
    exchange: Exchange,
    { state }: Scope,
    { lastContactMs }: ListedState,
    isInstead = false,
  ): Record<string, string> {
    return state === "live" && !isInstead ? {} : copyHeaders(exchange, lastContactMs, this.clock.nowMs());
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
    exchange: Pick<Exchange, "accepted">,
    info: RequestInfo,
    caller: Caller,
    isUsable: (scope: Scope) => boolean,
  ): FoundObject | undefined {
    const included = info.query.get("includeObject") ?? "Metadata";
    const notBefore = info.query.get("resourceVersion") ?? "";
    return this.scopes.findObject(
      objectAsked(info, caller),
      exchange.accepted,
      (scope) =>
        isUsable(scope) &&
        vouchesFor(scope.servedVersion, notBefore) &&
        (scope.listed?.shape.listKind !== "Table" || includedIn(scope.identity) === included),
    );
  }

  /** Answers with an object from a scope. @param isInstead as in `list`. */
  object(exchange: Exchange, { scope, listed, item }: FoundObject, isInstead = false): void {
    this.count("servedFromCache");
    scope.use();
    const codec = scope.codec(listed);
    const body = codec.single(listed.shape, agedRow(listed, item.bytes, this.clock.nowMs()));
    exchange.response.writeHead(200, {
      "Content-Type": typeFor(exchange, codec),
      "Content-Length": body.length,
      "Cache-Control": "no-cache, private",
      ...this.#warning(exchange, scope, listed, isInstead),
    });
    exchange.response.end(body);
  }

  /**
   * What answers a GET while the API server cannot, ready to be given: of an
   * object the newest that this caller has been told, wherever that stands.
   *
   * @param doubtedAtMs recordings of objects and own writes up to then do not count.
   */
  kept(
    exchange: Exchange,
    info: RequestInfo,
    caller: Caller,
    isObject: boolean,
    doubtedAtMs = 0,
  ): (() => void) | undefined {
    const recorded = this.recordings.find(exchange, info, caller.principal);
    const believed = info.resource !== "" && (recorded?.storedAtMs ?? 0) <= doubtedAtMs ? undefined : recorded;
    if (!isObject) return believed === undefined ? undefined : () => this.#recorded(exchange, believed);
    return this.#newestTold(exchange, info, caller, { believed, doubtedAtMs })?.give;
  }

  /** The object itself that a GET of this caller would be answered with, as that client reads it. */
  keptObject(
    exchange: Exchange,
    info: RequestInfo,
    caller: Caller,
  ): { readonly contentType: string; readonly body: Uint8Array } | undefined {
    const believed = this.recordings.find(exchange, info, caller.principal);
    return this.#newestTold(exchange, info, caller, { believed, doubtedAtMs: 0 })?.read();
  }

  #newestTold(
    exchange: Exchange,
    info: RequestInfo,
    caller: Caller,
    { believed, doubtedAtMs }: { readonly believed: StoredResponse | undefined; readonly doubtedAtMs: number },
  ): Told | undefined {
    const where = objectAsked(info, caller);
    const write = this.writes.find(where);
    const asked = info.query.get("resourceVersion") ?? "";
    const told: Told[] = [];
    if (believed !== undefined) told.push(this.#toldBy(exchange, believed));
    const written = write === undefined || write.atMs <= doubtedAtMs ? undefined : this.#readable(exchange, write);
    if (written !== undefined) told.push(this.#toldBy(exchange, this.recordings.shown(info, written)));
    const standing = told.filter(
      (one) => vouchesFor(one.resourceVersion, asked) && !wasSeenGone(this.scopes, where, one),
    );
    const found = this.findObject(exchange, info, caller, () => true);
    if (found !== undefined)
      standing.push({
        ...found.item.meta,
        atMs: found.listed.lastContactMs,
        give: () => this.object(exchange, found, true),
        read: () => ({ contentType: found.listed.contentType, body: found.item.bytes }),
      });
    return standing.filter((one) => !isGoneBy(write, one)).reduce<Told | undefined>(newest, undefined);
  }

  #toldBy(exchange: Exchange, response: StoredResponse): Told {
    return {
      ...metaOfAnswer(response),
      atMs: response.storedAtMs,
      give: () => this.#recordedObject(exchange, response),
      read: () => ({ contentType: mediaType(response.headers["content-type"] ?? ""), body: response.body }),
    };
  }

  /** An own write as an answer, if this client can read its form. */
  #readable(exchange: Exchange, { contentType, body, atMs }: Written): StoredResponse | undefined {
    if (contentType === undefined || body === undefined) return undefined;
    const format = contentType.startsWith("application/json") ? "json" : "protobuf";
    if (!exchange.accepted.some((one) => one.format === format && one.as === "object")) return undefined;
    const isYaml = format === "json" && prefersYaml(exchange.header("accept"));
    const headers = { "content-type": isYaml ? "application/yaml" : contentType, "cache-control": "no-cache, private" };
    return { status: 200, headers, body, storedAtMs: atMs };
  }

  /** Answers with a recording or an own write. */
  #recordedObject(exchange: Exchange, response: StoredResponse): void {
    const nowMs = this.clock.nowMs();
    this.#recorded(exchange, agedResponse(response, nowMs), copyHeaders(exchange, response.storedAtMs, nowMs));
  }

  #recorded(exchange: Exchange, response: StoredResponse, more: Record<string, string> = {}): void {
    this.count("servedFromCache");
    const { etag } = response.headers;
    if (etag !== undefined && exchange.header("if-none-match") === etag) {
      exchange.response.writeHead(304, { ETag: etag });
      exchange.response.end();
      return;
    }
    exchange.response.writeHead(response.status, {
      ...response.headers,
      ...more,
      "content-length": String(response.body.length),
    });
    exchange.response.end(response.body);
  }
}

/** The object that a request names. */
export function objectAsked(info: RequestInfo, { principal }: Caller): WrittenWhere {
  const { group, version, resource, name } = info;
  return { principal, group, version, resource, name, namespace: resource === "namespaces" ? "" : info.namespace };
}

/** JSON is YAML, and whoever wants that alone is told that it is. */
function typeFor(exchange: Exchange, { contentType }: Codec): string {
  return contentType === "application/json" && prefersYaml(exchange.header("accept"))
    ? "application/yaml"
    : contentType;
}

/** Whether a list is of just one moment. */
function isExactList({ query }: Pick<RequestInfo, "query">): boolean {
  const resourceVersion = query.get("resourceVersion") ?? "";
  const match = query.get("resourceVersionMatch") ?? "";
  if (resourceVersion === "" || resourceVersion === "0") return false;
  return match === "Exact" || (match === "" && (query.get("limit") ?? "0") !== "0");
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
  if (isExactList({ query }) && order < 0) throw expired(`too old resource version: ${resourceVersion} (${held})`);
  if (order > 0) throw resourceVersionTooLarge(resourceVersion, held);
}

/** Whether what stands at one resourceVersion is not older than another, as asked for: "" and "0" ask for nothing. */
function vouchesFor(held: string, asked: string): boolean {
  if (asked === "" || asked === "0") return true;
  return /^[1-9][0-9]*$/.test(asked) && compareResourceVersions(held, asked) >= 0;
}

/** More than this is not unfolded: no answer that is kept is larger. */
const MAX_UNFOLDED_BYTES = 8 * 1024 * 1024;

/** The bytes of a recording, as the tap hands them over; undefined for what cannot be read, or unfolds to more than 8 MiB. */
export function decodeBody(bytes: Uint8Array, encoding: string | null): Uint8Array | undefined {
  if (encoding === null || encoding === "identity") return bytes;
  if (encoding !== "gzip") return undefined;
  const { gunzipSync } = require("node:zlib") as typeof import("node:zlib");
  try {
    return gunzipSync(bytes, { maxOutputLength: MAX_UNFOLDED_BYTES });
  } catch {
    return undefined;
  }
}
