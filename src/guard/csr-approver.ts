/**
 * Approves what `csr-rules.ts` finds fit, on the one replica that leads.
 *
 * How often a node was approved is read from the requests themselves, where the
 * signer keeps them for an hour after issuing; so a guard that starts anew, or
 * another that takes over, counts on. Each approval names the resourceVersion
 * that was judged: whoever changes the request meanwhile has won.
 */

import * as v from "valibot";
import type { Clock } from "../base/clock.ts";
import type { Log } from "../base/log.ts";
import type { Metric, Metrics } from "../base/metrics.ts";
import { ApiError, type KubernetesClient } from "./api.ts";
import {
  nodeNamed,
  PENDING_REASONS,
  useOf,
  whyPending,
  type AskedCertificate,
  type Pending,
  type ReservedAddresses,
} from "./csr-rules.ts";
import { describe } from "./follow.ts";
import type { Happenings } from "./happenings.ts";

/** What approves, and by what. */
export interface ApproverOptions {
  readonly client: KubernetesClient;
  readonly clock: Clock;
  readonly log: Log;
  readonly metrics: Metrics;
  readonly happenings: Happenings;
  /** Reads a request's PEM. Throws when a single byte is unaccounted for; the message says where. */
  readonly read: (pem: string) => AskedCertificate;
}

const REQUESTS = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
const PAGE = 500;
const MOST_PEM_BYTES = 64 * 1024;
/** Requests looked at in one round: a flood of them must not hold up the webhook. */
const MOST_AT_ONCE = 100;

const text = v.nullish(v.string(), "");
const condition = v.looseObject({ type: text, status: text, lastUpdateTime: text });
const requestSchema = v.object({
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
});
type Request = v.InferOutput<typeof requestSchema>;
const nodeSchema = v.object({
  metadata: v.object({ labels: v.nullish(v.record(v.string(), v.string()), {}) }),
  status: v.nullish(v.object({ addresses: v.nullish(v.array(v.object({ address: v.string() })), []) })),
});
const serviceSchema = v.object({ spec: v.nullish(v.object({ clusterIPs: v.nullish(v.array(v.string()), []) })) });
const slicesSchema = v.object({ endpoints: v.nullish(v.array(v.object({ addresses: v.array(v.string()) })), []) });

/** The approver; `round` is one look at all requests. */
export class CsrApprover {
  readonly #approved: Metric;
  readonly #pending: Metric;
  /** Requests that were judged and left, by uid with their version: nothing is said twice. */
  readonly #left = new Map<string, string>();
  /** What stands in each request, by uid: a request's text never changes. */
  readonly #parsed = new Map<string, AskedCertificate | Error>();
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
    for (const seen of [this.#left, this.#parsed, this.#lookedAt])
      for (const uid of seen.keys()) if (!known.has(uid)) seen.delete(uid);
    const lookedAt = ({ metadata: { uid } }: Request) => this.#lookedAt.get(uid) ?? -1;
    const open = requests
      .filter(isOpen)
      .toSorted((a, b) => lookedAt(a) - lookedAt(b))
      .slice(0, MOST_AT_ONCE);
    if (open.length === 0) return;
    this.#rounds += 1;
    const reserved = await this.#reserved();
    const approvals = this.#approvals(requests);
    for (const request of open) {
      this.#lookedAt.set(request.metadata.uid, this.#rounds);
      try {
        await this.#judge(request, approvals, reserved);
      } catch (error) {
        if (!(error instanceof ApiError && error.isConflict))
          this.options.log.warn("cannot judge a certificate request", {
            name: request.metadata.name,
            reason: describe(error),
          });
      }
    }
  }

  async #judge(request: Request, approvals: Map<string, number>, reserved: ReservedAddresses): Promise<void> {
    const { metadata, spec } = request;
    const use = useOf(spec.signerName)!;
    const asked = this.#read(request);
    if (asked instanceof Error) return this.#leave(request, { reason: "unreadable", message: asked.message });
    const nodeName = nodeNamed(asked);
    const node = use === "serving" && nodeName !== undefined ? await this.#node(nodeName) : undefined;
    const pending = whyPending({
      spec: { ...spec, use, expirationSeconds: spec.expirationSeconds ?? undefined },
      asked,
      node,
      reserved,
      lastApprovedMs: nodeName === undefined ? undefined : approvals.get(`${use} ${nodeName}`),
      nowMs: this.options.clock.nowMs(),
    });
    if (pending !== undefined) return this.#leave(request, pending);
    const at = new Date(this.options.clock.nowMs()).toISOString().replace(/\.\d+Z$/, "Z");
    const approval = {
      type: "Approved",
      status: "True",
      reason: "HoldfastApproved",
      message: `The ${use} certificate of node ${nodeName}, asked for as the rules say`,
      lastUpdateTime: at,
    };
    const status = { ...request.status, conditions: [...(request.status?.conditions ?? []), approval] };
    await this.options.client.update(`${REQUESTS}/${metadata.name}/approval`, {
      apiVersion: "certificates.k8s.io/v1",
      kind: "CertificateSigningRequest",
      metadata,
      spec,
      status,
    });
    // The first of a round counts against the second.
    approvals.set(`${use} ${nodeName}`, this.options.clock.nowMs());
    this.#approved.add({ use });
    this.options.log.info("certificate request approved", { name: metadata.name, node: nodeName, use });
  }

  #leave({ metadata }: Request, { reason, message }: Pending): void {
    if (this.#left.get(metadata.uid) === `${metadata.resourceVersion} ${reason}`) return;
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

  /** When a request was last approved, by "USE NODE". */
  #approvals(all: readonly Request[]): Map<string, number> {
    const approvals = new Map<string, number>();
    for (const request of all) {
      const approval = request.status?.conditions.find(({ type }) => type === "Approved");
      if (approval === undefined) continue;
      const asked = this.#read(request);
      const nodeName = asked instanceof Error ? undefined : nodeNamed(asked);
      if (nodeName === undefined) continue;
      const key = `${useOf(request.spec.signerName)} ${nodeName}`;
      // A time that cannot be read counts as now: an approval is an approval.
      const atMs = Date.parse(approval.lastUpdateTime);
      approvals.set(
        key,
        Math.max(
          approvals.get(key) ?? Number.NEGATIVE_INFINITY,
          Number.isNaN(atMs) ? this.options.clock.nowMs() : atMs,
        ),
      );
    }
    return approvals;
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
    const found = await this.options.client.get(`/api/v1/nodes/${name}`);
    if (found === undefined) return undefined;
    const { metadata, status } = v.parse(nodeSchema, found);
    return {
      addresses: (status?.addresses ?? []).map(({ address }) => address),
      isControlPlane: metadata.labels["node-role.kubernetes.io/control-plane"] !== undefined,
    };
  }

  /** The API server's own addresses, as they are now. */
  async #reserved(): Promise<ReservedAddresses> {
    const { client } = this.options;
    const service = v.parse(serviceSchema, (await client.get("/api/v1/namespaces/default/services/kubernetes")) ?? {});
    const slices = await client.list(
      "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices?labelSelector=kubernetes.io%2Fservice-name%3Dkubernetes",
      { limit: PAGE },
    );
    return {
      service: service.spec?.clusterIPs ?? [],
      endpoints: slices.items
        .flatMap((item) => v.parse(slicesSchema, item).endpoints ?? [])
        .flatMap(({ addresses }) => addresses),
    };
  }
}

function isOpen({ status }: Request): boolean {
  return (
    (status?.certificate ?? "") === "" &&
    !(status?.conditions ?? []).some(({ type }) => type === "Approved" || type === "Denied" || type === "Failed")
  );
}
