/**
 * Approves what `csr-rules.ts` finds fit, on the one replica that leads.
 *
 * How often a node was approved is read from the requests themselves, where the
 * signer keeps them for an hour after issuing; so a guard that starts anew, or
 * another that takes over, counts on; what may still be on its way stands in
 * the leader's Lease (`claims.ts`). Each approval names the resourceVersion that
 * was judged: whoever changes the request meanwhile has won.
 */

import { X509Certificate } from "node:crypto";
import type {
  V1CertificateSigningRequest,
  V1CertificateSigningRequestCondition,
  V1Node,
} from "@kubernetes/client-node";
import * as v from "valibot";
import type { Clock } from "../base/clock.ts";
import type { Log } from "../base/log.ts";
import type { Metric, Metrics } from "../base/metrics.ts";
import { reads, sent } from "../kube/wire.ts";
import { ApiError, type ClusterApi, type Collections } from "../cluster/api.ts";
import type { Claims } from "./claims.ts";
import {
  APPROVAL_PAUSE_MS,
  nodeNamed,
  PENDING_REASONS,
  useOf,
  whyPending,
  type AskedCertificate,
  type Pending,
} from "./csr-rules.ts";
import { describe } from "../cluster/follow.ts";
import type { Happenings } from "./happenings.ts";
import type { Names, TakenNames } from "./taken-names.ts";

/** What approves, and by what. */
export interface ApproverOptions {
  readonly api: ClusterApi;
  readonly client: Collections;
  readonly clock: Clock;
  readonly log: Log;
  readonly metrics: Metrics;
  readonly happenings: Happenings;
  readonly taken: TakenNames;
  readonly claims: Claims;
  /** Whether this replica may still write; asked again before every approval. */
  readonly isLeader: () => boolean;
  /** Reads a request's PEM. Throws when a single byte is unaccounted for; the message says where. */
  readonly read: (pem: string) => AskedCertificate;
}

const REQUESTS = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
const PAGE = 500;
const MOST_PEM_BYTES = 64 * 1024;
/** Requests looked at in one round: a flood of them must not hold up the webhook. */
const MOST_AT_ONCE = 100;
/** Approved in one round: what is claimed has to find room in an annotation. */
const MOST_APPROVED = 20;

const text = v.nullish(v.string(), "");
const condition = v.looseObject({ type: text, status: text, lastUpdateTime: text });
const requestSchema = reads<V1CertificateSigningRequest>()(
  v.object({
    metadata: v.looseObject({ name: v.string(), uid: text, resourceVersion: text }),
    spec: v.looseObject({
      request: v.string(),
      signerName: v.string(),
      username: text,
      groups: v.nullish(v.array(v.string()), []),
      usages: v.nullish(v.array(v.string()), []),
      expirationSeconds: v.nullish(v.number()),
    }),
    status: v.nullish(
      v.looseObject({ certificate: v.nullish(v.string()), conditions: v.nullish(v.array(condition), []) }),
    ),
  }),
);
type Request = v.InferOutput<typeof requestSchema>;
const nodeSchema = reads<V1Node>()(
  v.object({
    metadata: v.object({ labels: v.nullish(v.record(v.string(), v.string()), {}) }),
    status: v.nullish(v.object({ addresses: v.nullish(v.array(v.object({ address: v.string() })), []) })),
  }),
);

const NOWHERE: ReadonlySet<string> = new Set();

/** A request that may be approved. */
interface Fit {
  /** "USE NODE". */
  readonly key: string;
  readonly request: Request;
  readonly message: string;
}

/** The approver; `round` is one look at all requests. */
export class CsrApprover {
  readonly #approved: Metric;
  readonly #pending: Metric;
  /** Requests that were judged and left, by uid with their version: nothing is said twice. */
  readonly #left = new Map<string, string>();
  /** What stands in each request, by uid: a request's text never changes. */
  readonly #parsed = new Map<string, AskedCertificate | Error>();
  /** When each issued certificate ends, by uid. */
  readonly #ends = new Map<string, number>();
  /** When each open request was last looked at, by round: whoever waited longest is next, so nobody can stand in the way. */
  readonly #lookedAt = new Map<string, number>();
  #rounds = 0;

  constructor(private readonly options: ApproverOptions) {
    this.#approved = options.metrics.counter("holdfast_guard_csr_approved_total", "Certificate requests approved.", {
      use: ["client", "serving"],
    });
    this.#pending = options.metrics.counter("holdfast_guard_csr_left_total", "Certificate requests left to others.", {
      reason: [...PENDING_REASONS],
    });
  }

  /** Judges requests that nobody has judged, some of them again. @throws {ApiError} when they cannot be listed. */
  async round(): Promise<void> {
    const requests = await this.#all();
    const known = new Set(requests.map(({ metadata }) => metadata.uid));
    for (const seen of [this.#left, this.#parsed, this.#ends, this.#lookedAt])
      for (const uid of seen.keys()) if (!known.has(uid)) seen.delete(uid);
    const lookedAt = ({ metadata: { uid } }: Request) => this.#lookedAt.get(uid) ?? -1;
    const open = requests
      .filter(isOpen)
      .toSorted((a, b) => lookedAt(a) - lookedAt(b))
      .slice(0, MOST_AT_ONCE);
    if (open.length === 0) return;
    this.#rounds += 1;
    const pauses = this.#pauses(requests);
    let taken: Promise<Names> | undefined;
    const fit = new Map<string, Fit>();
    for (const request of open) {
      if (fit.size >= MOST_APPROVED) break;
      this.#lookedAt.set(request.metadata.uid, this.#rounds);
      await this.#tried(request, async () => {
        const found = await this.#judge(request, pauses, () => (taken ??= this.options.taken.read()));
        // The first of a round counts against the second.
        if (found !== undefined) pauses.set(found.key, Number.POSITIVE_INFINITY);
        if (found !== undefined) fit.set(found.key, found);
      });
    }
    await this.#approve(fit);
  }

  async #tried({ metadata: { name } }: Request, act: () => Promise<void>): Promise<void> {
    try {
      await act();
    } catch (error) {
      if (!(error instanceof ApiError && error.isConflict))
        this.options.log.warn("cannot judge a certificate request", { name, reason: describe(error) });
    }
  }

  /** @returns undefined for one that is left to others. */
  async #judge(
    request: Request,
    pauses: ReadonlyMap<string, number>,
    taken: () => Promise<Names>,
  ): Promise<Fit | undefined> {
    const { metadata, spec } = request;
    const use = useOf(spec.signerName)!;
    const asked = this.#read(request);
    if (asked instanceof Error) return this.#leave(request, { reason: "unreadable", message: asked.message });
    const nodeName = nodeNamed(asked);
    const isServing = use === "serving" && nodeName !== undefined;
    const key = `${use} ${nodeName}`;
    const names = isServing ? await taken() : undefined;
    const pending = whyPending({
      spec: { ...spec, use, expirationSeconds: spec.expirationSeconds ?? undefined },
      asked,
      node: isServing ? await this.#node(nodeName) : undefined,
      takenBy: names?.takenBy ?? (() => undefined),
      place: nodeName === undefined ? NOWHERE : (names?.placeOf(nodeName) ?? NOWHERE),
      notBeforeMs: this.options.claims.isClaimed(key, metadata.uid) ? Number.POSITIVE_INFINITY : pauses.get(key),
      nowMs: this.options.clock.nowMs(),
    });
    if (pending !== undefined) return this.#leave(request, pending);
    return { key, request, message: `The ${use} certificate of node ${nodeName}, asked for as the rules say` };
  }

  async #approve(fit: ReadonlyMap<string, Fit>): Promise<void> {
    const { claims, isLeader } = this.options;
    if (fit.size === 0) return;
    if (!(await claims.claim(new Map([...fit].map(([key, { request }]) => [key, request.metadata.uid]))))) return;
    for (const one of fit.values()) {
      if (!isLeader()) return;
      await this.#tried(one.request, () => this.#write(one));
    }
  }

  async #write({ key, request, message }: Fit): Promise<void> {
    const { api, clock, log } = this.options;
    const { metadata, spec } = request;
    const approval = sent<V1CertificateSigningRequestCondition>()({
      type: "Approved",
      status: "True",
      reason: "HoldfastApproved",
      message,
      lastUpdateTime: new Date(clock.nowMs()).toISOString().replace(/\.\d+Z$/, "Z"),
    });
    const approved = sent<V1CertificateSigningRequest>()({
      apiVersion: "certificates.k8s.io/v1",
      kind: "CertificateSigningRequest",
      metadata,
      spec,
      status: { ...request.status, conditions: [...(request.status?.conditions ?? []), approval] },
    });
    await api.approveRequest(metadata.name, approved);
    this.#approved.add({ use: useOf(spec.signerName)! });
    log.info("certificate request approved", { name: metadata.name, request: key });
  }

  #leave({ metadata }: Request, { reason, message }: Pending): undefined {
    if (this.#left.get(metadata.uid) === `${metadata.resourceVersion} ${reason}`) return undefined;
    this.#left.set(metadata.uid, `${metadata.resourceVersion} ${reason}`);
    this.#pending.add({ reason });
    this.options.log.info("certificate request left to others", { name: metadata.name, why: reason });
    this.options.happenings.tell({
      kind: "CertificateSigningRequest",
      namespace: "",
      name: metadata.name,
      uid: metadata.uid,
      type: "Normal",
      reason: "HoldfastLeftPending",
      message: `Left to others: ${message}`,
    });
    return undefined;
  }

  #read({ metadata: { uid }, spec }: Request): AskedCertificate | Error {
    const known = this.#parsed.get(uid);
    if (known !== undefined) return known;
    const parsed = this.#parse(spec.request);
    this.#parsed.set(uid, parsed);
    return parsed;
  }

  #parse(request: string): AskedCertificate | Error {
    // Base64 of PEM; what is longer is no request of a kubelet.
    if (request.length > MOST_PEM_BYTES) return new Error(`expected at most ${MOST_PEM_BYTES} bytes of request`);
    try {
      return this.options.read(Buffer.from(request, "base64").toString("latin1"));
    } catch (error) {
      return error as Error;
    }
  }

  /** Until when no other request is approved, by "USE NODE". */
  #pauses(all: readonly Request[]): Map<string, number> {
    const pauses = new Map<string, number>();
    for (const request of all) {
      const approval = request.status?.conditions.find(({ type }) => type === "Approved");
      if (approval === undefined) continue;
      const asked = this.#read(request);
      const nodeName = asked instanceof Error ? undefined : nodeNamed(asked);
      if (nodeName === undefined) continue;
      const key = `${useOf(request.spec.signerName)} ${nodeName}`;
      // A time that cannot be read counts as now: an approval is an approval.
      const atMs = Date.parse(approval.lastUpdateTime);
      const fromMs = Number.isNaN(atMs) ? this.options.clock.nowMs() : atMs;
      pauses.set(key, Math.max(pauses.get(key) ?? Number.NEGATIVE_INFINITY, fromMs + this.#pauseOf(request, fromMs)));
    }
    return pauses;
  }

  /** Half its life for a certificate that lives shorter than two hours: it has to be renewed in time. */
  #pauseOf({ metadata: { uid }, status }: Request, approvedMs: number): number {
    const certificate = status?.certificate ?? "";
    if (certificate === "") return APPROVAL_PAUSE_MS;
    let endMs = this.#ends.get(uid);
    if (endMs === undefined) this.#ends.set(uid, (endMs = notAfterMs(Buffer.from(certificate, "base64"))));
    return Math.min(APPROVAL_PAUSE_MS, Math.max(0, endMs - approvedMs) / 2);
  }

  async #all(): Promise<Request[]> {
    const found: Request[] = [];
    let next: string | undefined;
    do {
      const page = await this.options.client.list(REQUESTS, { limit: PAGE, next });
      for (const item of page.items) {
        const parsed = v.safeParse(requestSchema, item);
        if (parsed.success && useOf(parsed.output.spec.signerName) !== undefined) found.push(parsed.output);
      }
      ({ next } = page);
    } while (next !== undefined);
    return found;
  }

  async #node(name: string) {
    const found = await this.options.api.readNode(name);
    if (found === undefined) return undefined;
    const { metadata, status } = v.parse(nodeSchema, found);
    return {
      addresses: (status?.addresses ?? []).map(({ address }) => address),
      isControlPlane: metadata.labels["node-role.kubernetes.io/control-plane"] !== undefined,
    };
  }
}

/** When a certificate ends; never for what is none. */
function notAfterMs(pem: Uint8Array): number {
  try {
    return Date.parse(new X509Certificate(pem).validTo);
  } catch {
    return Number.POSITIVE_INFINITY;
  }
}

function isOpen({ status }: Request): boolean {
  return (
    (status?.certificate ?? "") === "" &&
    !(status?.conditions ?? []).some(({ type }) => type === "Approved" || type === "Denied" || type === "Failed")
  );
}
