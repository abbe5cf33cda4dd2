/**
 * Where this node is shown, on every way up and down.
 *
 *   kubelet, agents, ourselves --- writes: the place goes in front ---> API server
 *                              <-- answers: as kubelet wrote them ----
 *
 * It sits in `upstream.ts`, where every request and every answer passes that
 * may hold the node, whoever asks: forwarded, followed by a scope, or asked by
 * us. So what is kept is what kubelet wrote, and a cut shows true addresses.
 *
 * What a write cannot carry (an apply, a form that is not read here) goes as it
 * is; what is astray then, or since the place is another, is told to who puts
 * it right (`node/place-keeper.ts`).
 *
 * The node is restored from its own annotation. Where somebody has taken that
 * away, from what is remembered of it here, as long as its addresses are the
 * ones that were shown.
 */

import type { Place, PlaceSource } from "../kube/place.ts";
import { editedJson } from "../kube/placed-json.ts";
import {
  isSameWhere,
  readAnnotation,
  showing,
  shownAs,
  trueOf,
  type NodeEdit,
  type SeenNode,
  type Shown,
  type Whereabouts,
} from "../kube/placed-node.ts";
import { placedPatch, type PatchedNode } from "../kube/placed-patch.ts";
import { editedProtobuf } from "../kube/placed-protobuf.ts";
import { mediaType, PROTOBUF_TYPE } from "../kube/representation.ts";
import { compareResourceVersions } from "../kube/resource-version.ts";
import { restoredAnswer, type AskedShape, type Restorer } from "./placed-answer.ts";
import type { UpstreamAnswer } from "./upstream-answer.ts";
import type { UpstreamRequest } from "./upstream.ts";

/** The node as the API server has it. */
interface Known extends SeenNode {
  readonly truth: Whereabouts;
  readonly shown: Shown | undefined;
}

/** What a correcting write says: the truth, to be shown on its way up. */
export interface Correction {
  readonly target: string;
  readonly contentType: string;
  readonly body: string;
}

/** A request that is about nodes, this one or all. */
interface AskedNodes {
  readonly shape: AskedShape;
  readonly name: string;
  readonly subresource: string;
}

/** This node's place. */
export class NodePlace implements Restorer {
  #source: PlaceSource | undefined;
  #known: Known | undefined;
  /** Metadata has said that the node is shown, before it was seen itself. */
  #isHeardOf = false;
  #listeners = new Set<() => void>();
  /** The last whole answer in which nothing was to be restored. */
  #untouched: Uint8Array | undefined;

  /**
   * @param nodeName undefined while our credential makes us none.
   * @param onFailed something could not be restored. @param why for people.
   */
  constructor(
    private readonly nodeName: () => string | undefined,
    private readonly onFailed: (why: string) => void,
  ) {}

  /** The node's name; "" while there is none. */
  get name(): string {
    return this.nodeName() ?? "";
  }

  /** Takes the place from there. @returns what ends that: the true addresses are shown again. */
  follow(source: PlaceSource): () => void {
    this.#source = source;
    const stop = source.onChange(() => this.#tell());
    this.#tell();
    return () => {
      stop();
      this.#source = undefined;
      this.#tell();
    };
  }

  /** Where kubelet says it is; undefined until the node was seen. */
  truth(): Whereabouts | undefined {
    return this.#known?.truth;
  }

  /** Every host at which kubelet is dialled, the place's among them; undefined while one of both is not known that should be. */
  hosts(): readonly string[] | undefined {
    const truth = this.truth();
    if (truth === undefined || truth.addresses.length === 0) return undefined;
    if (this.#source !== undefined && this.#place === undefined) return undefined;
    return shownAs(truth, this.#place).addresses.map(({ address }) => address);
  }

  /** Whether the node, as the API server has it, stands where it should not. */
  get isAstray(): boolean {
    const known = this.#known;
    if (known === undefined) return false;
    const { where, annotation } = showing(known.truth, this.#place);
    if (where === undefined) return known.shown !== undefined;
    return known.annotation !== annotation || !isSameWhere(known.now, where);
  }

  /** Whether the node has to be asked for: nobody has read it yet, and it is shown or is to be. */
  get needsLook(): boolean {
    return this.#known === undefined && this.name !== "" && (this.#isHeardOf || this.#place !== undefined);
  }

  /** Where the node itself is asked for. */
  get target(): string {
    return `/api/v1/nodes/${encodeURIComponent(this.name)}`;
  }

  /** Calls when the place is another, or the node was seen. @returns what ends that. */
  onChange(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** The write that puts right what is astray; undefined when nothing is. It names what was seen, so that a newer write wins. */
  correction(): Correction | undefined {
    if (!this.isAstray) return undefined;
    const { uid, resourceVersion, truth } = this.#known!;
    const status = {
      addresses: [...truth.addresses, { $patch: "replace" }],
      daemonEndpoints: { kubeletEndpoint: { Port: truth.port } },
    };
    return {
      target: `${this.target}/status`,
      contentType: "application/strategic-merge-patch+json",
      body: JSON.stringify({ metadata: { uid, resourceVersion }, status }),
    };
  }

  shownOf(node: SeenNode): Shown | undefined {
    const shown = node.annotation === undefined ? this.#remembered(node) : readAnnotation(node.annotation);
    if (node.annotation !== undefined && shown === undefined)
      this.failed("its annotation of true addresses is not as it was written");
    const known = this.#known;
    if (known === undefined || compareResourceVersions(node.resourceVersion, known.resourceVersion) >= 0) {
      this.#known = { ...node, shown, truth: shown === undefined ? node.now : trueOf(node.now, shown) };
      this.#tell();
    }
    return shown;
  }

  heardOf(): void {
    if (this.#isHeardOf) return;
    this.#isHeardOf = true;
    this.#tell();
  }

  lastShown(): Shown | undefined {
    return this.#known?.shown;
  }

  failed(why: string): void {
    if (this.#source !== undefined || this.#known?.shown !== undefined) this.onFailed(why);
  }

  /** Whether the answer to a request may say where this node is, and not as its kubelet wrote it. */
  concerns(method: string, target: string): boolean {
    return this.#isConcerned && this.#asked({ method, target }) !== undefined;
  }

  /** Whether a request and its answer pass here: `up`, then `down`. */
  looksAt(request: Pick<UpstreamRequest, "method" | "target">): boolean {
    return this.#asked(request) !== undefined;
  }

  /** A request as it goes up. */
  up(request: UpstreamRequest): UpstreamRequest {
    const asked = this.#asked(request);
    if (asked === undefined) return request;
    const headers = this.#isConcerned ? readable(request.headers) : request.headers;
    const body = request.body instanceof Uint8Array ? this.#written(request, asked, request.body) : undefined;
    if (headers === request.headers && (body === undefined || body === request.body)) return request;
    return { ...request, headers, ...(body === undefined ? {} : { body: new Uint8Array(body) }) };
  }

  /** Its answer as it comes down. */
  async down(request: UpstreamRequest, answer: UpstreamAnswer): Promise<UpstreamAnswer> {
    const asked = this.#asked(request);
    if (asked === undefined || request.method === "HEAD" || this.#isAsBefore(answer)) return answer;
    const restored = await restoredAnswer(answer, asked.shape, this);
    this.#untouched = restored === answer && !this.#isConcerned ? answer.whole : undefined;
    return restored;
  }

  /** Nothing is shown anywhere, and the very same answer had nothing in it to restore. */
  #isAsBefore({ whole }: UpstreamAnswer): boolean {
    if (whole === undefined || this.#untouched === undefined || this.#isConcerned) return false;
    return Buffer.compare(whole, this.#untouched) === 0;
  }

  get #place(): Place | undefined {
    return this.#source?.current();
  }

  /** Whether there is, or may be, anything to restore. */
  get #isConcerned(): boolean {
    return this.#source !== undefined || this.#known?.shown !== undefined;
  }

  #asked({ method, target }: Pick<UpstreamRequest, "method" | "target">): AskedNodes | undefined {
    const asked = askedNodes(method, target);
    if (asked === undefined || this.name === "") return undefined;
    return (asked.name === "" || asked.name === this.name) && /^(status)?$/.test(asked.subresource) ? asked : undefined;
  }

  /** The annotation is gone, and the addresses are those that we showed. */
  #remembered({ uid, now }: SeenNode): Shown | undefined {
    const known = this.#known;
    if (known?.shown === undefined || known.uid !== uid) return undefined;
    return isSameWhere(now, shownAs(known.shown.truth, known.shown.place)) ? known.shown : undefined;
  }

  #written(request: UpstreamRequest, asked: AskedNodes, body: Uint8Array): Uint8Array | undefined {
    const type = mediaType(headerOf(request.headers, "content-type") ?? "application/json");
    try {
      if (request.method === "PATCH")
        return asked.subresource === "status" ? placedPatch(type, body, this.#patched) : undefined;
      if (request.method !== "POST" && request.method !== "PUT") return undefined;
      const edit = (node: SeenNode) => this.#editOf(request.method === "PUT" && asked.subresource === "", node);
      if (type === "application/json") return editedJson(body, this.name, edit);
      return type === PROTOBUF_TYPE ? editedProtobuf(body, this.name, edit) : undefined;
    } catch {
      // The API server is the one to refuse what is no node or no patch.
      return undefined;
    }
  }

  /** @param isMetadataAlone the status in it counts for nothing, and what annotation is not in it is lost. */
  #editOf(isMetadataAlone: boolean, node: SeenNode): NodeEdit {
    if (isMetadataAlone) return { annotation: this.#known?.annotation };
    return showing(node.now, this.#place);
  }

  get #patched(): PatchedNode {
    const known = this.#known;
    return {
      truth: known?.truth,
      place: this.#place,
      isAstray: this.isAstray,
      isShown: known?.shown !== undefined,
      hasOurs: known?.annotation !== undefined,
      hasAnnotations: known?.hasAnnotations === true,
    };
  }

  #tell(): void {
    for (const listener of this.#listeners) listener();
  }
}

/** Reads a target as the API server does, as far as it may be about nodes; undefined for everything else. */
export function askedNodes(method: string, target: string): AskedNodes | undefined {
  if (!target.startsWith("/api/") || !/\/nodes|%/.test(target)) return undefined;
  const mark = target.indexOf("?");
  const path = mark < 0 ? target : target.slice(0, mark);
  const segments = path
    .split("/")
    .filter((segment) => segment !== "")
    .map(decoded);
  if (segments[1] !== "v1") return undefined;
  const isWatchPath = segments[2] === "watch" && method === "GET";
  const [resource, name = "", ...subresources] = segments.slice(isWatchPath ? 3 : 2);
  if (resource !== "nodes") return undefined;
  const query = new URLSearchParams(mark < 0 ? "" : target.slice(mark + 1));
  const isWatch = isWatchPath || (name === "" && method === "GET" && isOn(query.get("watch")));
  const isList = name === "" && (method === "GET" || method === "DELETE");
  return { shape: isWatch ? "watch" : isList ? "list" : "object", name, subresource: subresources.join("/") };
}

function isOn(value: string | null): boolean {
  return value !== null && !/^(0|false)$/i.test(value);
}

function decoded(segment: string): string {
  try {
    return decodeURIComponent(segment);
  } catch {
    return segment;
  }
}

function headerOf(headers: UpstreamRequest["headers"], wanted: string): string | undefined {
  return headers.find(([name]) => name.toLowerCase() === wanted)?.[1];
}

/** Without the forms that are not read here, where the client takes another. */
function readable(headers: UpstreamRequest["headers"]): UpstreamRequest["headers"] {
  const accept = headerOf(headers, "accept");
  if (accept === undefined || !/yaml|cbor/i.test(accept)) return headers;
  const clauses = accept.split(",").filter((clause) => !/^\s*application\/(yaml|cbor)/i.test(clause));
  if (clauses.length === 0) return headers;
  return headers.map(([name, value]) => [name, name.toLowerCase() === "accept" ? clauses.join(",") : value] as const);
}
