/**
 * The API server by the runtime's own fetch: CA, client certificate and token
 * as they are on disk at this moment.
 *
 * Single objects are asked for by the API classes of @kubernetes/client-node
 * (`guard/api-classes.ts`), over the same `sendTo`. Collections are not: the package's
 * watch knows no silence and no 410 in time, and its models drop what they do
 * not know and cost a page of pods twice.
 *
 * A watch is an HTTP answer without an end. A cut shows as nothing at all:
 * bookmarks are asked for and come about once a minute, so silence beyond
 * `WATCH_SILENCE_MS` is a broken stream.
 */

import type { V1Status } from "@kubernetes/client-node";
import * as v from "valibot";
import type { Clock } from "../base/clock.ts";
import type { Credential } from "../kube/credential.ts";
import { reads } from "../kube/wire.ts";
import { ApiError, type Collections, type ListPage, type WatchEvent } from "./api.ts";

/** Which API server, and as whom. */
export interface KubernetesTarget {
  /** https://HOST:PORT. */
  readonly server: string;
  /** Read at every request: a CA is rotated too. */
  readonly caPem: () => string;
  readonly tlsServerName?: string | undefined;
  /** An HTTP proxy in between. */
  readonly proxyUrl?: string | undefined;
  /** Undefined asks as nobody. */
  readonly credential: Credential | undefined;
}

/** How it is asked. */
export interface KubernetesOptions {
  readonly target: KubernetesTarget;
  readonly clock: Clock;
  readonly userAgent: string;
  /** Of single objects. Default 10 s. */
  readonly timeoutMs?: number;
  /** What collections are asked for as; default whole objects in JSON. */
  readonly accept?: string;
  /** Default 90 s: a bookmark comes every minute or so. */
  readonly watchSilenceMs?: number;
  /** Called whenever the API server has proved that it is there: an answer below 500, or bytes of a watch. */
  readonly onContact?: () => void;
  /** In [0, 1); spreads the moments at which watches end. */
  readonly random?: () => number;
}

const LIST_TIMEOUT_MS = 60_000;
const WATCH_SILENCE_MS = 90_000;
/** One event; beyond it somebody is not sending Kubernetes. Objects are at most 3 MB. */
const MAX_LINE_BYTES = 16 * 1024 * 1024;

const listSchema = v.object({
  metadata: v.object({ resourceVersion: v.optional(v.string(), ""), continue: v.nullish(v.string(), "") }),
  items: v.nullish(v.array(v.unknown()), []),
});
const eventSchema = v.object({
  type: v.picklist(["ADDED", "MODIFIED", "DELETED", "BOOKMARK", "ERROR"]),
  object: v.unknown(),
});
const statusSchema = reads<V1Status>()(
  v.object({
    message: v.optional(v.string(), ""),
    reason: v.optional(v.string(), ""),
    code: v.optional(v.number(), 0),
  }),
);

/** What goes up. */
export interface Sent {
  readonly method: string;
  /** With its query. */
  readonly path: string;
  /** A text goes as it is, everything else as JSON. */
  readonly body?: unknown;
  readonly contentType?: string;
  readonly accept?: string;
  readonly signal: AbortSignal;
}

/** Names, labels and annotations alone: for what is followed and is large. */
export const METADATA_ONLY =
  "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json";

/** Asks an API server. Opens nothing until asked. */
export function collections(options: KubernetesOptions): Collections {
  return new FetchedCollections(options);
}

class FetchedCollections implements Collections {
  constructor(private readonly options: KubernetesOptions) {}

  async list(path: string, { limit, next }: Parameters<Collections["list"]>[1]): Promise<ListPage> {
    const query = { limit: String(limit), ...(next === undefined ? {} : { continue: next }) };
    const body = await this.#text(withQuery(path, query));
    const { metadata, items } = v.parse(listSchema, parsed(path, body));
    return {
      items: items ?? [],
      resourceVersion: metadata.resourceVersion,
      next: metadata.continue ? metadata.continue : undefined,
      sizeBytes: body.length,
    };
  }

  async *watch(path: string, resourceVersion: string, signal: AbortSignal): AsyncGenerator<WatchEvent> {
    const { clock, watchSilenceMs = WATCH_SILENCE_MS, random = Math.random, onContact } = this.options;
    const silence = new AbortController();
    const listen = () => clock.after(watchSilenceMs, () => silence.abort(new Error("silent")));
    let cancel = listen();
    const heard = () => {
      cancel();
      cancel = listen();
      onContact?.();
    };
    const query = {
      watch: "true",
      allowWatchBookmarks: "true",
      resourceVersion,
      // Spread, so that not all watches of all guards begin anew together.
      timeoutSeconds: String(Math.round(300 + 300 * random())),
    };
    try {
      const until = AbortSignal.any([signal, silence.signal]);
      const response = await this.#send({ method: "GET", path: withQuery(path, query), signal: until });
      if (response.body === null) return;
      for await (const line of linesOf(response.body, heard)) yield eventOf(path, line);
    } catch (error) {
      if (signal.aborted) return;
      throw error instanceof ApiError ? error : unreachable("WATCH", path, error);
    } finally {
      cancel();
      // Whoever stops reading ends the request too.
      silence.abort(new Error("ended"));
    }
  }

  async #text(path: string): Promise<string> {
    const response = await this.#send({ method: "GET", path, signal: AbortSignal.timeout(LIST_TIMEOUT_MS) });
    try {
      return await response.text();
    } catch (error) {
      throw unreachable("GET", path, error);
    }
  }

  #send(sent: Sent): Promise<Response> {
    const { accept } = this.options;
    return sendTo(this.options, { ...sent, ...(accept === undefined ? {} : { accept }) });
  }
}

/**
 * One request that is to be answered well.
 *
 * @throws {ApiError} when it is refused, or nobody answers (`status` 0).
 */
export async function sendTo(
  { target, userAgent, onContact }: Pick<KubernetesOptions, "target" | "userAgent" | "onContact">,
  { method, path, body, contentType = "application/json", accept = "application/json", signal }: Sent,
): Promise<Response> {
  const headers: Record<string, string> = { Accept: accept, "User-Agent": userAgent };
  if (body !== undefined) headers["Content-Type"] = contentType;
  let response: Response;
  try {
    response = await fetchFrom(target, path, {
      method,
      headers,
      signal,
      ...(body === undefined ? {} : { body: typeof body === "string" ? body : JSON.stringify(body) }),
    });
  } catch (error) {
    throw unreachable(method, path, error);
  }
  if (response.status < 500) onContact?.();
  if (response.ok) return response;
  throw refused(method, path, response.status, await response.text().catch(() => ""));
}

/**
 * One request to an API server, with CA, client certificate and token as they are on disk now.
 *
 * @param path with its query.
 * @throws whatever the runtime's fetch throws.
 */
async function fetchFrom(
  target: KubernetesTarget,
  path: string,
  request: { readonly headers: Readonly<Record<string, string>> } & Omit<RequestInit, "headers">,
): Promise<Response> {
  const { server, credential, tlsServerName, proxyUrl } = target;
  const tls: Record<string, unknown> = { ca: target.caPem(), ...(tlsServerName ? { serverName: tlsServerName } : {}) };
  if (credential?.kind === "certificate") {
    const { certPem, keyPem } = credential.read();
    Object.assign(tls, { cert: certPem, key: keyPem });
  }
  const authorization = credential?.kind === "token" ? { Authorization: `Bearer ${credential.read()}` } : {};
  return await fetch(`${server}${path}`, {
    ...request,
    headers: { ...request.headers, ...authorization },
    redirect: "error",
    tls,
    ...(proxyUrl === undefined ? {} : { proxy: proxyUrl }),
    // The runtime ends silent answers after six minutes otherwise; deadlines are ours.
    timeout: false,
  } as RequestInit);
}

async function* linesOf(body: ReadableStream<Uint8Array>, heard: () => void): AsyncGenerator<string> {
  const decoder = new TextDecoder();
  let rest = "";
  for await (const chunk of body as unknown as AsyncIterable<Uint8Array>) {
    heard();
    rest += decoder.decode(chunk, { stream: true });
    let from = 0;
    for (let at = rest.indexOf("\n", from); at >= 0; at = rest.indexOf("\n", from)) {
      if (at > from) yield rest.slice(from, at);
      from = at + 1;
    }
    rest = rest.slice(from);
    if (rest.length > MAX_LINE_BYTES) throw new Error("an event longer than any object may be");
  }
}

function eventOf(path: string, line: string): WatchEvent {
  const { type, object } = v.parse(eventSchema, parsed(path, line));
  if (type !== "ERROR") return { type, object };
  const status = v.safeParse(statusSchema, object);
  const { code, reason, message } = status.success ? status.output : { code: 0, reason: "", message: "" };
  throw new ApiError(`Cannot watch ${path}: ${reason} ${message}`, code, reason);
}

/** A path with more in its query. */
export function withQuery(path: string, more: Readonly<Record<string, string>>): string {
  const query = new URLSearchParams(more).toString();
  return query === "" ? path : `${path}${path.includes("?") ? "&" : "?"}${query}`;
}

function parsed(path: string, body: string): unknown {
  try {
    return body === "" ? undefined : JSON.parse(body);
  } catch (cause) {
    throw new ApiError(`Cannot read ${path}: the answer is no JSON (${body.length} characters)`, 0, "", { cause });
  }
}

function unreachable(method: string, path: string, cause: unknown): ApiError {
  const { code, name } = cause as { code?: string; name?: string };
  const why = name === "TimeoutError" ? "no answer in time" : (code ?? name ?? "unknown");
  return new ApiError(`Cannot ${method} ${path}: the API server cannot be reached (${why})`, 0, "", { cause });
}

function refused(method: string, path: string, code: number, body: string): ApiError {
  let said: unknown;
  try {
    said = JSON.parse(body);
  } catch {
    said = {};
  }
  const status = v.safeParse(statusSchema, said);
  const { reason, message } = status.success ? status.output : { reason: "", message: "" };
  // A Status names fields and objects; bodies and credentials are never in it.
  return new ApiError(`Cannot ${method} ${path}: ${code} ${reason} ${message.slice(0, 500)}`.trim(), code, reason);
}
