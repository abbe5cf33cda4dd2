/**
 * Writes that are answered while the API server cannot be asked.
 *
 *   kubelet's lease               echoed, not stored
 *   own node's, own pods' status  laid over the kept object
 *   events                        201, a bounded ring, sent up at the return
 *   service-account token         the kept one, for pods in the node's list
 *   own node POST                 409 when it is known
 *   token and access reviews      a decision that still stands
 *   own CSINode                   refused; online its answer is kept for reads
 *
 * Everything else is refused by the forwarder. Online each of them goes up as
 * it came, and what must be known for a cut is learned from the answer.
 *
 * Only the node's own identity is answered; events and reviews are anybody's
 * whom the API server has let in before.
 */

import type { Overlays, StatusTarget } from "./overlays.ts";
import type { FoundObject, Scopes } from "../cache/scopes.ts";
import { MalformedError } from "../kube/codec.ts";
import { parseExact, writeExact } from "../kube/exact-json.ts";
import { badRequest, StatusError } from "../kube/status-error.ts";
import { openEnvelope } from "../kube/protobuf-wire.ts";
import { readTokenSpec } from "../kube/token-request.ts";
import { mediaType, representationKey } from "../kube/representation.ts";
import type { Store } from "../store/contract.ts";
import type { NodeLease } from "./node-lease.ts";
import type { EventRing } from "./event-ring.ts";
import type { Exchange } from "../front/exchange.ts";
import type { Registration } from "./registration.ts";
import { requestBody, type AnswerTap, type Fallback, type Forwarder } from "../front/forward.ts";
import type { Caller } from "../callers/identify.ts";
import type { NodeWrite } from "../front/node-write.ts";
import type { RequestInfo } from "../front/request-info.ts";
import type { ReviewMemory } from "../callers/review-memory.ts";
import type { CopyServer } from "../front/serve.ts";
import type { TokenOwner, TokenVault } from "./token-vault.ts";

/** What these answers are made of. */
export interface NodeWriteParts {
  readonly forwarder: Forwarder;
  readonly copies: CopyServer;
  readonly scopes: Scopes;
  readonly store: Store;
  readonly overlays: Overlays;
  readonly events: EventRing;
  readonly tokens: TokenVault;
  readonly reviews: ReviewMemory;
  readonly lease: NodeLease;
  readonly registration: Registration;
  readonly nowMs: () => number;
}

interface Write {
  readonly exchange: Exchange;
  readonly info: RequestInfo;
  readonly caller: Caller;
  readonly body: Uint8Array;
  readonly contentType: string;
}

interface Answer {
  readonly contentType: string;
  readonly body: Uint8Array;
}

const PROTOBUF = "application/vnd.kubernetes.protobuf";

/** Answers them. */
export class NodeWrites {
  constructor(private readonly parts: NodeWriteParts) {}

  /** Forwards the write; if there is nobody to forward it to, answers it. @param passing sees the answer too. */
  async serve(
    exchange: Exchange,
    info: RequestInfo,
    caller: Caller,
    kind: NodeWrite,
    passing: AnswerTap,
  ): Promise<void> {
    const sent = await requestBody(exchange);
    const body = sent.body ?? new Uint8Array(0);
    if (!(body instanceof Uint8Array)) return this.parts.forwarder.forward(exchange, caller, { sent, tap: passing });
    const write: Write = {
      exchange,
      info,
      caller,
      body,
      contentType: mediaType(exchange.header("content-type") ?? ""),
    };
    const renewal = { contentType: write.contentType, body };
    if (kind === "lease" && info.verb === "update" && this.parts.lease.isEarly(renewal))
      return answerWith(exchange, 200, this.parts.lease.echo(renewal));
    const { fallback, learn } = this.#row(kind, write);
    return this.parts.forwarder.forward(exchange, caller, {
      sent,
      ...(fallback === undefined ? {} : { fallback: { ...fallback, isOnlyForLoss: true } }),
      tap: learn === undefined ? passing : new LearningTap(passing, learn),
    });
  }

  #row(kind: NodeWrite, write: Write): { fallback?: Fallback; learn?: (answer: Answer) => void } {
    switch (kind) {
      case "lease":
        return this.#leaseRow(write);
      case "status":
        return { fallback: this.#statusFallback(write) };
      case "event":
        return { fallback: this.#eventFallback(write) };
      case "token":
        return this.#tokenRow(write);
      case "node":
        return { fallback: this.#nodeFallback(write) };
      case "review":
        return this.#reviewRow(write);
      case "csinode":
        return { learn: (answer) => this.#keepCsiNode(write, answer) };
    }
  }

  // ---- lease ----

  #leaseRow({ exchange, info, caller, body, contentType }: Write) {
    const { lease } = this.parts;
    const isUpdate = info.verb === "update";
    if (isUpdate) lease.goesUp();
    const canServe = () => isUpdate || lease.kept(caller.nodeName!) !== undefined;
    const serve = async () => {
      if (isUpdate) {
        requireObject("lease", { contentType, body });
        return answerWith(exchange, 200, lease.echo({ contentType, body }));
      }
      if (info.verb === "create") throw alreadyExists("leases.coordination.k8s.io", caller.nodeName!);
      return answerWith(exchange, 200, lease.kept(caller.nodeName!)!);
    };
    const learn = (answer: Answer) => lease.answered(caller.nodeName!, answer, isUpdate);
    return { fallback: { canServe, serve }, learn };
  }

  // ---- status ----

  #statusFallback({ exchange, info, caller, body, contentType }: Write): Fallback {
    const { copies, overlays } = this.parts;
    const target: StatusTarget = {
      resource: info.resource as StatusTarget["resource"],
      namespace: info.namespace,
      name: info.name,
    };
    const takesJson = exchange.accepted.some(({ format, as }) => format === "json" && as === "object");
    return {
      canServe: () => takesJson && this.#object(caller, target.resource, target.namespace, target.name) !== undefined,
      serve: async () => copies.object(exchange, overlays.patchStatus(caller.principal, target, { contentType, body })),
    };
  }

  // ---- events ----

  #eventFallback({ exchange, info, caller, body, contentType }: Write): Fallback {
    const isPatch = info.verb === "patch";
    const takesJson = exchange.accepted.some(({ format }) => format === "json");
    return {
      canServe: () => this.#isKnown(caller) && (!isPatch || takesJson),
      serve: async () => {
        if (!isPatch) requireObject("event", { contentType, body });
        const method = isPatch ? "PATCH" : "POST";
        // The patched event itself may never have been here: what is known of it is its name and the change.
        const answer = isPatch ? patchedEvent(info, body) : { contentType, body };
        const isTaken = this.parts.events.push({
          principal: caller.principal,
          method,
          target: exchange.target,
          contentType: exchange.header("content-type") ?? "application/json",
          body,
        });
        if (!isTaken) throw new StatusError({ code: 413, reason: "RequestEntityTooLarge", message: "Event too large" });
        answerWith(exchange, isPatch ? 200 : 201, answer);
      },
    };
  }

  /** The API server has let this caller in before: something is kept for it. */
  #isKnown(caller: Caller): boolean {
    if (caller.nodeName !== undefined) return true;
    for (const { identity, listed } of this.parts.scopes.all())
      if (identity.principal === caller.principal && listed !== undefined) return true;
    return false;
  }

  // ---- tokens ----

  #tokenRow({ exchange, info, caller, body }: Write) {
    const { tokens } = this.parts;
    const owner = tokenOwner(info, body);
    const kept = () =>
      owner !== undefined && this.#isOwnPods(caller, owner)
        ? tokens.find(owner, (contentType) => isAccepted(exchange, contentType))
        : undefined;
    return {
      fallback: {
        canServe: () => kept() !== undefined,
        serve: async () => {
          const answer = kept()!;
          tokens.handedOut(owner!, answer);
          answerWith(exchange, 201, answer);
        },
      },
      learn: (answer: Answer) => {
        if (owner !== undefined) tokens.keep(owner, answer);
      },
    };
  }

  #isOwnPods(caller: Caller, { namespace, serviceAccount, spec }: TokenOwner): boolean {
    if (spec.boundKind !== "Pod") return false;
    const pod = this.#object(caller, "pods", namespace, spec.boundName);
    if (pod === undefined || pod.item.meta.uid !== spec.boundUid) return false;
    const { bytes } = pod.item;
    const { spec: podSpec } = JSON.parse(Buffer.from(bytes).toString("utf8")) as {
      spec?: { serviceAccountName?: string };
    };
    return (podSpec?.serviceAccountName ?? "default") === serviceAccount;
  }

  // ---- node ----

  #nodeFallback({ caller, contentType, body }: Write): Fallback {
    return {
      canServe: () => this.#object(caller, "nodes", "", caller.nodeName!) !== undefined,
      serve: async () => {
        this.parts.registration.answered({ contentType, body });
        throw alreadyExists("nodes", caller.nodeName!);
      },
    };
  }

  // ---- CSINode ----

  /**
   * Kubelet reads its CSINode at its start, where there may be none yet, and
   * writes it then and for each driver that comes: without the answers to these
   * writes the one it must find at its next start would never have been seen.
   */
  #keepCsiNode({ exchange, info, caller }: Write, { contentType, body }: Answer): void {
    const { group, version, resource } = info;
    const key = {
      principal: caller.principal,
      target: `/apis/${group}/${version}/${resource}/${caller.nodeName!}`,
      accept: representationKey(exchange.accepted),
    };
    const headers = { "content-type": contentType, "cache-control": "no-cache, private" };
    const kept = { status: 200, headers, body, storedAtMs: this.parts.nowMs() };
    this.parts.store.putResponse(key, kept, { isSecret: false });
  }

  // ---- reviews ----

  #reviewRow({ exchange, info, caller, body, contentType }: Write) {
    const { reviews } = this.parts;
    const question = {
      principal: caller.principal,
      resource: info.resource,
      path: info.path,
      accept: exchange.header("accept") ?? "",
      contentType,
      body,
    };
    return {
      fallback: {
        canServe: () => reviews.recall(question) !== undefined,
        serve: async () => answerWith(exchange, 201, reviews.recall(question)!),
      },
      learn: (answer: Answer) => reviews.remember(question, answer),
    };
  }

  #object(caller: Caller, resource: string, namespace: string, name: string): FoundObject | undefined {
    return this.parts.scopes.findObject(
      { principal: caller.principal, group: "", version: "v1", resource, namespace, name },
      [{ format: "json", as: "object", asVersion: "" }],
    );
  }
}

/** Passes an answer on and reads it when it came whole with 200 or 201. */
class LearningTap implements AnswerTap {
  #parts: Uint8Array[] | undefined;
  #size = 0;
  #contentType = "";
  #isPassingListening = false;

  constructor(
    private readonly passing: AnswerTap,
    private readonly learn: (answer: Answer) => void,
  ) {}

  head(status: number, headers: Headers): boolean {
    this.#isPassingListening = this.passing.head(status, headers);
    const isPlain = headers.get("content-encoding") === null;
    if ((status === 200 || status === 201) && isPlain) this.#parts = [];
    this.#contentType = mediaType(headers.get("content-type") ?? "");
    return this.#isPassingListening || this.#parts !== undefined;
  }

  chunk(bytes: Uint8Array): void {
    if (this.#isPassingListening) this.passing.chunk(bytes);
    if (this.#parts === undefined) return;
    this.#size += bytes.length;
    if (this.#size > MAX_LEARNED_BYTES) this.#parts = undefined;
    else this.#parts.push(bytes);
  }

  async end(): Promise<void> {
    if (this.#isPassingListening) await this.passing.end();
    if (this.#parts !== undefined)
      this.learn({ contentType: this.#contentType, body: new Uint8Array(Buffer.concat(this.#parts)) });
  }

  abort(): void {
    if (this.#isPassingListening) this.passing.abort();
  }
}

const MAX_LEARNED_BYTES = 64 * 1024;

function answerWith(exchange: Exchange, status: number, { contentType, body }: Answer): void {
  exchange.response.writeHead(status, {
    "Content-Type": contentType,
    "Content-Length": body.length,
    "Cache-Control": "no-cache, private",
  });
  exchange.response.end(body);
}

function isAccepted(exchange: Exchange, contentType: string): boolean {
  const format = contentType === "application/json" ? "json" : "protobuf";
  return exchange.accepted.some((representation) => representation.format === format);
}

function tokenOwner(info: RequestInfo, body: Uint8Array): TokenOwner | undefined {
  try {
    return { namespace: info.namespace, serviceAccount: info.name, spec: readTokenSpec(body) };
  } catch (error) {
    // The API server is the one to refuse it.
    if (error instanceof MalformedError) return undefined;
    throw error;
  }
}

function patchedEvent({ group, version, namespace, name }: RequestInfo, patch: Uint8Array): Answer {
  let changes: { metadata?: object };
  try {
    changes = parseExact(patch) as { metadata?: object };
    if (changes === null || typeof changes !== "object") throw new TypeError("not an object");
  } catch (cause) {
    throw new StatusError(
      { code: 400, reason: "BadRequest", message: `Cannot patch events "${name}": the body is not a JSON object` },
      { cause },
    );
  }
  const apiVersion = group === "" ? version : `${group}/${version}`;
  const event = { kind: "Event", apiVersion, ...changes, metadata: { ...changes.metadata, name, namespace } };
  return { contentType: "application/json", body: Buffer.from(writeExact(event)) };
}

/** What is taken for its own answer must at least be an object: the API server would refuse the rest. */
function requireObject(what: string, { contentType, body }: Answer): void {
  try {
    if (contentType === PROTOBUF) return void openEnvelope(body, 0, body.length);
    const object = parseExact(body);
    if (typeof object === "object" && object !== null && !Array.isArray(object)) return;
  } catch (error) {
    if (!(error instanceof MalformedError)) throw error;
  }
  throw badRequest(`Cannot take the ${what}: the body is not an object in ${contentType || "JSON"}`);
}

function alreadyExists(resource: string, name: string): StatusError {
  return new StatusError({ code: 409, reason: "AlreadyExists", message: `${resource} "${name}" already exists` });
}
