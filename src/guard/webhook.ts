/**
 * The webhook: an AdmissionReview in, its verdict out.
 *
 * Who judges stands in `judge-pods.ts` and `judge-endpoints.ts`; here is who is
 * let in, what is counted and what happens when nobody can judge: 503 while
 * the view is not synced, 500 on a fault of ours, so that the failurePolicy of
 * the rule decides.
 *
 * Before a refusal or a repair the view is given a moment and asked again: a
 * person's taint reaches the eviction controller and this process by two
 * watches, and the controller may be the faster one. It gives up after five
 * refusals within 50 ms, so a refusal too many would be for good.
 *
 * The serving certificate is exchanged by a second listener on the same port,
 * because the runtime ignores a new one on an open listener; connections that
 * stand go on under the old one.
 */

import { createServer } from "node:net";
import { Hono, type Context } from "hono";
import type { Clock } from "../base/clock.ts";
import { EdgeError } from "../base/errors.ts";
import type { Log } from "../base/log.ts";
import type { Metric, Metrics } from "../base/metrics.ts";
import { statusJson, statusReason } from "../kube/status.ts";
import {
  readReview,
  reviewAnswer,
  ReviewError,
  type AdmissionAnswer,
  type AdmissionRequest,
} from "./admission-review.ts";
import type { ClusterView } from "./cluster-view.ts";
import { Denials, type Denial } from "./denials.ts";
import { Intake, MAX_BODY_BYTES, type IntakeLimits } from "./intake.ts";
import { ENDPOINT_REASONS, mendEndpoints, mendEndpointSlice, type Repair } from "./judge-endpoints.ts";
import { judgePodDelete, judgePodEviction, judgePodStatus, POD_REASONS, type Verdict } from "./judge-pods.ts";
import { WEBHOOK_PATHS, WEBHOOK_RULES, type WebhookPath } from "./webhook-rules.ts";

/** What the webhook needs. */
export interface WebhookOptions {
  readonly view: ClusterView;
  readonly clock: Clock;
  readonly metrics: Metrics;
  readonly log: Log;
  /** Called for every refusal and repair that is no dry run; the entry counts repetitions. */
  readonly onDenied?: (denial: Denial) => void;
  readonly limits?: IntakeLimits;
  /** How long the view may lag behind a person. Default 100 ms; 0 judges once. */
  readonly settleMs?: number;
}

/** Where it listens. */
export interface ListenOptions extends WebhookOptions {
  readonly host: string;
  /** 0 picks a free one. */
  readonly port: number;
  readonly tls: ServingKeyPair;
}

/** What is served with, PEM. */
export interface ServingKeyPair {
  readonly certPem: string;
  readonly keyPem: string;
}

/** A running webhook. */
export interface Webhook {
  readonly port: number;
  /** What was refused or repaired lately, latest last. */
  denials(): Denial[];
  /** New connections see this certificate; open ones go on. */
  reload(tls: ServingKeyPair): void;
  /**
   * Finishes what runs, takes no more and ends.
   *
   * @param lingerMs still accepts for so long, asking clients to go elsewhere: a Service forgets an endpoint late.
   */
  stop(lingerMs?: number): Promise<void>;
}

/** The port is taken or not ours. */
export class WebhookListenError extends EdgeError {
  override readonly name = "WebhookListenError";
  readonly code = "WEBHOOK_LISTEN";
}

const SETTLE_MS = 100;
/** Beyond it a refusal is given at once: waiting is a kindness, memory is not. */
const MAX_SETTLING = 4_096;
/** Longer than the 90 s after which an idle Go client closes: whoever closes first must not be us, or a review is lost. */
const IDLE_SECONDS = 120;
const FINISH_MS = 5_000;
const BUCKETS_SECONDS = [0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2];

/** A judgement as it goes out. */
interface Judged {
  readonly answer: AdmissionAnswer;
  readonly verdict: "allowed" | "denied" | "patched";
  readonly reason: string;
  readonly message: string;
  readonly nodeName: string;
  readonly mayLag: boolean;
}

type Rule = (request: AdmissionRequest, view: ClusterView, nowMs: number) => Judged;

const RULES: Readonly<Record<WebhookPath, Rule>> = {
  "/validate/pods-delete": (...given) => judgedPod(given[0], judgePodDelete(...given)),
  "/validate/pods-eviction": (...given) => judgedPod(given[0], judgePodEviction(...given)),
  "/validate/pods-status": (...given) => judgedPod(given[0], judgePodStatus(...given)),
  "/mutate/endpointslices": (...given) => mended(given[0], mendEndpointSlice(...given)),
  "/mutate/endpoints": (...given) => mended(given[0], mendEndpoints(...given)),
};

/** The application, its memory and its count of what runs; `startWebhook` gives it a port. */
export function webhookApp(options: WebhookOptions) {
  const reviewer = new Reviewer(options);
  const app = new Hono();
  for (const path of WEBHOOK_PATHS) {
    app.post(path, (context) => reviewer.review(path, context));
    app.all(path, () => Promise.reject(new ReviewError(`Cannot answer on ${path}: expected POST`, 405)));
  }
  app.notFound(({ req: { path } }) =>
    reviewer.refuse(new ReviewError(`Cannot find ${path}: expected one of ${WEBHOOK_PATHS.join(", ")}`, 404)),
  );
  app.onError((error) => reviewer.refuse(error));
  return { app, denials: reviewer.denials, state: reviewer.state };
}

/** A review's way: read, judged, perhaps twice, noted, answered. */
class Reviewer {
  readonly denials = new Denials();
  readonly state = { running: 0, settling: 0, isStopping: false };
  readonly #intake: Intake;
  readonly #reviews: Metric;
  readonly #refused: Metric;
  readonly #seconds: ReturnType<Metrics["histogram"]>;

  constructor(private readonly options: WebhookOptions) {
    const { clock, metrics, limits } = options;
    this.#intake = new Intake(clock, limits);
    this.#reviews = metrics.counter("holdfast_guard_reviews_total", "Admission reviews judged, dry runs left out.", {
      rule: WEBHOOK_PATHS,
      verdict: ["allowed", "denied", "patched"],
      reason: [...new Set<string>([...POD_REASONS, ...ENDPOINT_REASONS])],
    });
    this.#refused = metrics.counter("holdfast_guard_reviews_refused_total", "Reviews answered with an HTTP error.", {
      code: ["400", "404", "405", "408", "411", "413", "415", "500", "503"],
    });
    this.#seconds = metrics.histogram(
      "holdfast_guard_review_seconds",
      "From a review's head to its answer, the second look included.",
      BUCKETS_SECONDS,
      { rule: WEBHOOK_PATHS },
    );
  }

  /** @throws {ReviewError} when it cannot be read or judged. */
  async review(path: WebhookPath, context: Context): Promise<Response> {
    const { clock, view } = this.options;
    const startedMs = clock.monotonicMs();
    this.state.running++;
    try {
      if (!view.isSynced) throw new ReviewError("Cannot judge yet: nodes and pods are still being read", 503);
      const request = readReview(await this.#intake.read(context.req.raw));
      checkResource(path, request);
      const judged = await this.#judge(path, request);
      if (!request.isDryRun) {
        this.#note(path, request, judged);
        this.#seconds.observe((clock.monotonicMs() - startedMs) / 1_000, { rule: path });
      }
      return answered(200, reviewAnswer(judged.answer), this.state.isStopping);
    } finally {
      this.state.running--;
    }
  }

  /** An HTTP error, so that the rule's failurePolicy decides. */
  refuse(error: Error): Response {
    const code = error instanceof ReviewError ? error.status : 500;
    this.#refused.add({ code: String(code) });
    if (code === 500) this.options.log.error("review failed", { error: error.name, reason: error.message });
    const message = code === 500 ? "Cannot judge: an internal error; see the guard's log" : error.message;
    // Where a body may still be on its way the connection is of no more use.
    return answered(code, failure(code, message), ![400, 404, 405].includes(code));
  }

  async #judge(path: WebhookPath, request: AdmissionRequest): Promise<Judged> {
    const { view, clock, settleMs = SETTLE_MS } = this.options;
    const once = () => RULES[path](request, view, clock.nowMs());
    const first = once();
    if (!first.mayLag || settleMs === 0 || this.state.settling >= MAX_SETTLING) return first;
    this.state.settling++;
    const { promise, resolve } = Promise.withResolvers<void>();
    clock.after(settleMs, resolve);
    await promise;
    this.state.settling--;
    return once();
  }

  #note(path: WebhookPath, request: AdmissionRequest, judged: Judged): void {
    const { clock, log, onDenied } = this.options;
    const { verdict, reason, message, nodeName } = judged;
    this.#reviews.add({ rule: path, verdict, reason });
    if (verdict === "allowed") return;
    const { namespace, name, user } = request;
    const denial = this.denials.add({
      atMs: clock.nowMs(),
      rule: path,
      reason,
      message,
      user: user.username,
      namespace,
      name,
      nodeName,
    });
    if (denial.count === 1)
      log.info(`guard ${verdict} a request`, { rule: path, reason, namespace, name, node: nodeName });
    onDenied?.(denial);
  }
}

/**
 * Listens.
 *
 * @throws {WebhookListenError} naming the address.
 */
export async function startWebhook(options: ListenOptions): Promise<Webhook> {
  const { app, denials, state } = webhookApp(options);
  const { bodyBytes = MAX_BODY_BYTES } = options.limits ?? {};
  const { host } = options;
  await assertFree(host, options.port);
  const open = (tls: ServingKeyPair, port: number) =>
    Bun.serve({
      hostname: host,
      port,
      development: false,
      // Two listeners share the port while the certificate is exchanged; `assertFree` keeps strangers apart.
      reusePort: true,
      idleTimeout: IDLE_SECONDS,
      // Up to twice ours the answer is ours, with words; beyond it the runtime's.
      maxRequestBodySize: 2 * bodyBytes,
      tls: { cert: tls.certPem, key: tls.keyPem },
      fetch: app.fetch,
    });
  const servers = [open(options.tls, options.port)];
  const port = servers[0]!.port!;
  return {
    port,
    denials: () => denials.list(),
    reload(tls) {
      const before = servers.at(-1)!;
      servers.push(open(tls, port));
      // Listens no more; connections that stand are served until they close.
      void before.stop();
    },
    async stop(lingerMs = 0) {
      state.isStopping = true;
      await Bun.sleep(lingerMs);
      void servers.at(-1)!.stop();
      const deadlineMs = performance.now() + FINISH_MS;
      while (state.running > 0 && performance.now() < deadlineMs) await Bun.sleep(5);
      // One turn more: the last answers have to leave.
      await Bun.sleep(10);
      await Promise.all(servers.map((server) => server.stop(true)));
    },
  };
}

/** A port that is shared is shared with anybody of our user: a second guard would start and take half. */
async function assertFree(host: string, port: number): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  const probe = createServer();
  probe.once("error", (error: NodeJS.ErrnoException) =>
    reject(
      new WebhookListenError(
        `Cannot listen on "${host}:${port}" for reviews: ${error.code === "EADDRINUSE" ? "another program has the port" : (error.code ?? "the address cannot be used")}; choose another address`,
        { cause: error },
      ),
    ),
  );
  probe.listen({ host, port, exclusive: true }, () => probe.close(() => resolve()));
  await promise;
}

function checkResource(path: WebhookPath, { group, resource, subresource }: AdmissionRequest): void {
  const rule = WEBHOOK_RULES.find((one) => one.path === path)!;
  const given = subresource === "" ? resource : `${resource}/${subresource}`;
  if (rule.apiGroups.includes(group) && rule.resources.includes(given)) return;
  throw new ReviewError(
    `Cannot judge ${given} of group "${group}" on ${path}, request.resource: expected ${rule.resources.join()}; compare the webhook's configuration with holdfast manifests`,
    400,
  );
}

function judgedPod(
  { uid }: AdmissionRequest,
  { allowed, reason, message = "", nodeName = "", mayLag }: Verdict,
): Judged {
  return {
    answer: allowed ? { uid, allowed } : { uid, allowed, message, auditAnnotations: { reason, node: nodeName } },
    verdict: allowed ? "allowed" : "denied",
    reason,
    message,
    nodeName,
    mayLag,
  };
}

function mended({ uid }: AdmissionRequest, { patch, reason, pods, nodeNames }: Repair): Judged {
  const isPatched = patch.length > 0;
  const message = `kept ready: ${pods.join(", ")}`;
  return {
    answer: {
      uid,
      allowed: true,
      patch,
      ...(isPatched ? { auditAnnotations: { reason, pods: pods.join(",") } } : {}),
    },
    verdict: isPatched ? "patched" : "allowed",
    reason,
    message,
    nodeName: nodeNames.join(","),
    // What kubelet has just said of a pod may not be here yet, and the endpoint would hide it for long.
    mayLag: isPatched,
  };
}

function failure(code: number, message: string): string {
  return statusJson({ code, reason: statusReason(code), message } as never);
}

function answered(status: number, body: string, closes: boolean): Response {
  return new Response(body, {
    status,
    headers: { "Content-Type": "application/json", ...(closes ? { Connection: "close" } : {}) },
  });
}
