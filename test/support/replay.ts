/**
 * A recorded kubelet's requests, sent again: to Holdfast before the API server
 * stand-in with the same objects.
 *
 * Bytes go out as they were recorded, but for what only this API server can
 * give: the UIDs of what kubelet creates, the resourceVersion that a watch
 * starts at, and that of an object that is put back.
 */

import * as https from "node:https";
import type { IncomingMessage } from "node:http";
import { gunzipSync } from "node:zlib";
import { startApiServer, type ApiServer } from "../../src/demo/api-server/api-server.ts";
import { decode, encode, envelope, fieldsOf, openEnvelope } from "../../src/demo/api-server/protobuf.ts";
import { requestInfo } from "../../src/demo/api-server/request.ts";
import { child, messageOf, textAt, type JsonObject } from "../../src/demo/api-server/schema.ts";
import { eventually } from "./client.ts";
import { startEdge, type Edge } from "./edge.ts";
import { isKubeletsOwn, type RecordedRequest, type Recording } from "./recorded-kubelet.ts";

const PROTOBUF = "application/vnd.kubernetes.protobuf";
const OF_A_WATCH = [
  "watch",
  "sendInitialEvents",
  "resourceVersion",
  "resourceVersionMatch",
  "allowWatchBookmarks",
  "timeoutSeconds",
  "limit",
];

/** An answer, read in whichever format it came. */
export interface Outcome {
  readonly status: number;
  readonly contentType: string;
  readonly retryAfter: string | undefined;
  readonly body: Buffer;
  /** The object, the list's items, or the objects that a watch began with; of an error its Status. */
  readonly objects: readonly JsonObject[];
  /** Where a list or the beginning of a watch stands. */
  readonly resourceVersion: string;
  /** Of a watch that was opened. */
  readonly watch?: { readonly isOpen: boolean; close(): void };
}

/** Holdfast and the API server of one recording. */
export class Replay implements AsyncDisposable {
  readonly #uids = new Map<string, string>();
  readonly #versions = new Map<string, string>();
  readonly #watches: { close(): void }[] = [];

  private constructor(
    readonly recording: Recording,
    readonly apiServer: ApiServer,
    readonly edge: Edge,
    private readonly credential: { readonly cert: string; readonly key: string },
  ) {}

  /** Starts both; what kubelet makes itself is not there yet. */
  static async start(recording: Recording): Promise<Replay> {
    const seeds = recording.objects.filter((object) => !isKubeletsOwn(object));
    const apiServer = await startApiServer({ objects: seeds as never });
    const user = `system:node:${recording.node}`;
    const keyPair = apiServer.cluster.clientCertificate(user, ["system:nodes"]);
    const kubeconfig = apiServer.kubeconfig({ user, groups: ["system:nodes"], keyPair });
    return new Replay(recording, apiServer, await startEdge({ apiServer, kubeconfig }), keyPair);
  }

  /** Sends a request to Holdfast. */
  async ask(request: RecordedRequest): Promise<Outcome> {
    const target = this.#target(request);
    const outcome = await this.#send(this.edge.url, this.edge.client.options.ca, request, target);
    if (outcome.resourceVersion !== "") this.#versions.set(collection(request.target), outcome.resourceVersion);
    if (outcome.status === 201) this.#learnUid(outcome);
    return outcome;
  }

  /** What the API server itself says to a read: for a watch, the list of the same. */
  async truth(request: RecordedRequest): Promise<Outcome> {
    const { pathname, searchParams } = new URL(request.target, "https://api.invalid");
    for (const name of OF_A_WATCH) searchParams.delete(name);
    const plain = searchParams.size === 0 ? pathname : `${pathname}?${searchParams}`;
    return await this.#send(this.apiServer.url, this.apiServer.cluster.ca, request, plain);
  }

  /** The body as it is sent now. */
  body(request: RecordedRequest): Buffer {
    const recorded = Buffer.from(request.body, "base64").toString("latin1");
    const text = [...this.#uids].reduce((all, [from, to]) => all.replaceAll(from, to), recorded);
    const bytes = Buffer.from(text, "latin1");
    return request.method === "PUT" ? this.#withPresentVersion(request, bytes) : bytes;
  }

  /** Takes the API server away, and waits until Holdfast knows. */
  async cut(): Promise<void> {
    await this.apiServer.cut();
    await this.#isOffline();
  }

  /** Ends Holdfast and starts it again without an API server. */
  async restart(): Promise<void> {
    this.closeWatches();
    await this.edge.restart();
    await this.#isOffline();
  }

  closeWatches(): void {
    for (const watch of this.#watches.splice(0)) watch.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.closeWatches();
    await this.edge[Symbol.asyncDispose]();
    await this.apiServer[Symbol.asyncDispose]();
  }

  async #isOffline(): Promise<void> {
    const client = this.edge.clientWith(this.credential);
    await eventually(
      () => client.get("/healthz"),
      ({ status }) => status === 503,
    );
  }

  #target({ target }: RecordedRequest): string {
    const version = this.#versions.get(collection(target)) ?? this.apiServer.resourceVersion;
    return target.replace(/(?<=[?&]resourceVersion=)N/, version);
  }

  /** What was created here has another UID than it had then. */
  #learnUid({ objects: [made] }: Outcome): void {
    const there = this.recording.objects.find(
      ({ kind, metadata }) =>
        isKubeletsOwn({ kind, metadata } as never) &&
        kind === made?.["kind"] &&
        metadata.name === textAt(made, "metadata.name"),
    );
    if (there !== undefined) this.#uids.set(there.metadata.uid, textAt(made, "metadata.uid"));
  }

  #withPresentVersion({ method, target, headers }: RecordedRequest, bytes: Buffer): Buffer {
    const isProtobuf = headers["content-type"] === PROTOBUF;
    const given = isProtobuf ? objectsIn(PROTOBUF, bytes)[0]! : (JSON.parse(bytes.toString("utf8")) as JsonObject);
    const { namespace, name } = requestInfo(method, target);
    const present = this.apiServer.object(textAt(given, "kind"), namespace, name);
    const resourceVersion = textAt(present, "metadata.resourceVersion");
    const uid = textAt(present, "metadata.uid");
    const put = { ...given, metadata: { ...child(given, "metadata"), resourceVersion, uid } };
    if (!isProtobuf) return Buffer.from(JSON.stringify(put));
    const [apiVersion, kind] = [textAt(given, "apiVersion"), textAt(given, "kind")];
    return envelope(apiVersion, kind, encode(put, messageOf(groupOf(apiVersion), kind)!));
  }

  async #send(url: string, ca: string, request: RecordedRequest, target: string): Promise<Outcome> {
    const { promise, resolve, reject } = Promise.withResolvers<Outcome>();
    const { hostname, port } = new URL(url);
    const body = this.body(request);
    const { method } = request;
    const outgoing = https.request(
      {
        method,
        host: hostname,
        port: Number(port),
        path: target,
        ca,
        ...this.credential,
        agent: new https.Agent({ ca, ...this.credential }),
        headers: { ...request.headers, ...(body.length === 0 ? {} : { "content-length": String(body.length) }) },
      },
      (incoming) => {
        if (requestInfo(method, target).verb === "watch" && incoming.statusCode === 200)
          this.#watch(target, incoming, () => outgoing.destroy(), resolve, reject);
        else whole(incoming).then(resolve, reject);
      },
    );
    outgoing.on("error", reject);
    outgoing.end(body);
    return await promise;
  }

  /** Resolves with the head, or, where the watch begins with what is there, with all of that; the watch stays open. */
  #watch(
    target: string,
    incoming: IncomingMessage,
    close: () => void,
    resolve: (outcome: Outcome) => void,
    reject: (error: Error) => void,
  ): void {
    const contentType = incoming.headers["content-type"] ?? "";
    const watch = { isOpen: true, close };
    this.#watches.push(watch);
    const events: WatchEvent[] = [];
    const done = () =>
      resolve({
        status: 200,
        contentType,
        retryAfter: undefined,
        body: Buffer.alloc(0),
        objects: events.filter(({ type }) => type === "ADDED").map(({ object }) => object),
        resourceVersion: textAt(events.findLast(({ type }) => type === "BOOKMARK")?.object, "metadata.resourceVersion"),
        watch,
      });
    const end = () => {
      watch.isOpen = false;
      reject(new Error(`the watch ${target} ended before its beginning was there`));
    };
    incoming.on("end", end);
    incoming.on("aborted", end);
    incoming.on("error", end);
    if (!/[?&]sendInitialEvents=true/.test(target)) return done();
    let bytes: Buffer = Buffer.alloc(0);
    incoming.on("data", (part: Buffer) => {
      bytes = takeEvents(contentType, Buffer.concat([bytes, part]), events);
      if (events.some(({ type }) => type === "BOOKMARK")) done();
    });
  }
}

interface WatchEvent {
  readonly type: string;
  readonly object: JsonObject;
}

/** Where a list and its watch meet. */
function collection(target: string): string {
  const { pathname, searchParams } = new URL(target, "https://api.invalid");
  return `${pathname} ${searchParams.get("fieldSelector")} ${searchParams.get("labelSelector")}`;
}

const groupOf = (apiVersion: string) => (apiVersion.includes("/") ? apiVersion.split("/")[0]! : "");

async function whole(incoming: IncomingMessage): Promise<Outcome> {
  const parts: Buffer[] = [];
  for await (const part of incoming) parts.push(part as Buffer);
  const sent = Buffer.concat(parts);
  const body = incoming.headers["content-encoding"] === "gzip" ? gunzipSync(sent) : sent;
  const contentType = incoming.headers["content-type"] ?? "";
  const { objects, resourceVersion } = read(contentType, body);
  const retryAfter = incoming.headers["retry-after"];
  return { status: incoming.statusCode!, contentType, retryAfter, body, objects, resourceVersion };
}

function read(contentType: string, body: Buffer): { objects: JsonObject[]; resourceVersion: string } {
  if (contentType.startsWith(PROTOBUF)) {
    const { kind, raw } = openEnvelope(body);
    const isList = kind.endsWith("List");
    const listMeta = isList ? [...fieldsOf(raw)].find(({ number }) => number === 1)?.bytes : undefined;
    const metadata = listMeta === undefined ? {} : decode(listMeta, messageOf("meta.k8s.io", "ListMeta")!);
    return { objects: objectsIn(contentType, body), resourceVersion: textAt(metadata, "resourceVersion") };
  }
  if (!contentType.startsWith("application/json")) return { objects: [], resourceVersion: "" };
  const value = JSON.parse(body.toString("utf8")) as JsonObject;
  if (!Array.isArray(value["items"])) return { objects: [value], resourceVersion: "" };
  return { objects: value["items"] as JsonObject[], resourceVersion: textAt(value, "metadata.resourceVersion") };
}

function objectsIn(contentType: string, body: Uint8Array): JsonObject[] {
  if (!contentType.startsWith(PROTOBUF)) return [JSON.parse(Buffer.from(body).toString("utf8")) as JsonObject];
  const { apiVersion, kind, raw } = openEnvelope(body);
  const group = kind === "Status" ? "" : groupOf(apiVersion);
  if (!kind.endsWith("List")) return [{ apiVersion, kind, ...decode(raw, messageOf(group, kind)!) }];
  const of = messageOf(group, kind.slice(0, -"List".length))!;
  return [...fieldsOf(raw)].filter(({ number }) => number === 2).map(({ bytes }) => decode(bytes, of));
}

/** Moves whole events out of the bytes. @returns what is left. */
function takeEvents(contentType: string, bytes: Buffer, events: WatchEvent[]): Buffer {
  let rest = bytes;
  if (!contentType.startsWith(PROTOBUF)) {
    for (let end = rest.indexOf(0x0a); end >= 0; end = rest.indexOf(0x0a)) {
      events.push(JSON.parse(rest.subarray(0, end).toString("utf8")) as WatchEvent);
      rest = rest.subarray(end + 1);
    }
    return rest;
  }
  while (rest.length >= 4 && rest.length >= 4 + rest.readUInt32BE(0)) {
    const end = 4 + rest.readUInt32BE(0);
    const [type, object] = [...fieldsOf(rest.subarray(4, end))];
    const raw = [...fieldsOf(object!.bytes)][0]!.bytes;
    events.push({ type: Buffer.from(type!.bytes).toString("utf8"), object: objectsIn(contentType, raw)[0]! });
    rest = rest.subarray(end);
  }
  return rest;
}
