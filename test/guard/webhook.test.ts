/**
 * The webhook over real TLS: what it answers to the API server, to strangers and to attackers.
 */
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { connect, type TLSSocket } from "node:tls";
import { systemClock } from "../../src/base/clock.ts";
import type { Log } from "../../src/base/log.ts";
import { Metrics } from "../../src/base/metrics.ts";
import { createAuthority, issueServingCertificate } from "../../src/certificates/authority.ts";
import type { Denial } from "../../src/guard/denials.ts";
import { startWebhook, type Webhook, WebhookListenError } from "../../src/guard/webhook.ts";
import { WEBHOOK_PATHS } from "../../src/guard/webhook-rules.ts";
import { guardedNode, guardedPod, NODE_CONTROLLER, NOW_MS, rawPod, SLICES, viewOf } from "./support.ts";

const SECRET = "marker-9d1f";
const identities = ["first", "second"].map((commonName) => {
  const authority = createAuthority({ commonName, nowMs: Date.now() });
  const request = { commonName, dnsNames: ["localhost"], ipAddresses: ["127.0.0.1"], nowMs: Date.now() };
  return { caPem: authority.certPem, pair: issueServingCertificate(authority, request) };
});
const CA = identities.map(({ caPem }) => caPem).join("");

function review(more: object = {}, top: object = {}): object {
  return {
    apiVersion: "admission.k8s.io/v1",
    kind: "AdmissionReview",
    request: {
      uid: "review-uid",
      kind: { group: "", version: "v1", kind: "Pod" },
      resource: { group: "", version: "v1", resource: "pods" },
      operation: "DELETE",
      namespace: "shop",
      name: "web",
      userInfo: { username: NODE_CONTROLLER, groups: ["system:serviceaccounts"] },
      dryRun: false,
      object: null,
      oldObject: rawPod({ Ready: "True", DisruptionTarget: "True" }),
      ...more,
    },
    ...top,
  };
}

let webhook: Webhook;
let view: ReturnType<typeof viewOf>;
let metrics: Metrics;
let denied: Denial[];
let lines: string[];

const note = (message: string, fields?: object) => void lines.push(JSON.stringify({ message, ...fields }));
const log: Log = { info: note, warn: note, error: note };

beforeEach(async () => {
  view = viewOf([guardedNode()], [guardedPod()]);
  metrics = new Metrics();
  denied = [];
  lines = [];
  webhook = await startWebhook({
    host: "127.0.0.1",
    port: 0,
    tls: identities[0]!.pair,
    view,
    // Silence is counted from the fixtures' own now.
    clock: { ...systemClock, nowMs: () => NOW_MS },
    metrics,
    log,
    onDenied: (denial) => denied.push(denial),
    settleMs: 30,
    limits: { readMs: 500 },
  });
});
afterEach(async () => await webhook.stop());

async function post(path: string, body: string | object, headers: Record<string, string> = {}, method = "POST") {
  const answer = await fetch(`https://127.0.0.1:${webhook.port}${path}`, {
    method,
    headers: { "Content-Type": "application/json", ...headers },
    ...(method === "GET" ? {} : { body: typeof body === "string" ? body : JSON.stringify(body) }),
    tls: { ca: CA },
  } as RequestInit);
  const text = await answer.text();
  return { status: answer.status, text, json: JSON.parse(text) };
}

const DELETE = "/validate/pods-delete";
const counted = (verdict: string) =>
  metrics
    .text()
    .split("\n")
    .filter((line) => line.startsWith("holdfast_guard_reviews_total") && line.includes(`verdict="${verdict}"`))
    .reduce((sum, line) => sum + Number(line.split(" ").at(-1)), 0);

describe("a review", () => {
  test("is refused in the words of AdmissionReview v1, counted and remembered", async () => {
    const { status, json } = await post(DELETE, review());
    expect(status).toBe(200);
    expect(json).toMatchObject({
      apiVersion: "admission.k8s.io/v1",
      kind: "AdmissionReview",
      response: { uid: "review-uid", allowed: false, status: { code: 403, reason: "Forbidden" } },
    });
    expect(counted("denied")).toBe(1);
    expect(denied).toMatchObject([
      { namespace: "shop", name: "web", nodeName: "edge", reason: "held-delete", count: 1 },
    ]);
    expect(webhook.denials()).toEqual(denied);
  });

  test("of a dry run gets the same verdict, and is not counted", async () => {
    const { json } = await post(DELETE, review({ dryRun: true }));
    expect(json.response.allowed).toBe(false);
    expect([counted("denied"), denied.length]).toEqual([0, 0]);
  });

  test("of an unknown user is allowed", async () => {
    const { json } = await post(DELETE, review({ userInfo: { username: "mallory", groups: [] } }));
    expect(json.response).toEqual({ uid: "review-uid", allowed: true });
  });

  test("of a slice is answered with a patch", async () => {
    const slice = {
      addressType: "IPv4",
      endpoints: [
        {
          addresses: ["10.0.0.1"],
          conditions: { ready: false },
          targetRef: { kind: "Pod", namespace: "shop", name: "web" },
        },
      ],
    };
    const { json } = await post(
      "/mutate/endpointslices",
      review({
        operation: "UPDATE",
        resource: { group: "discovery.k8s.io", version: "v1", resource: "endpointslices" },
        userInfo: { username: SLICES },
        object: slice,
      }),
    );
    expect(json.response).toMatchObject({ allowed: true, patchType: "JSONPatch" });
    expect(JSON.parse(atob(json.response.patch))).toContainEqual({
      op: "replace",
      path: "/endpoints/0/conditions/ready",
      value: true,
    });
    expect(counted("patched")).toBe(1);
  });

  test("is looked at twice: a person's taint that arrives a moment later turns it", async () => {
    const answer = post(DELETE, review());
    setTimeout(() => (view.nodeList = [guardedNode({ taints: [{ key: "maintenance", effect: "NoExecute" }] })]), 10);
    expect((await answer).json.response.allowed).toBe(true);
    expect(denied).toEqual([]);
  });

  test("waits for nobody while the view is not whole: 503, so that failurePolicy decides", async () => {
    view.isSynced = false;
    expect((await post(DELETE, review())).status).toBe(503);
  });

  test("on which a judge trips is a 500 that says nothing of it", async () => {
    view.node = () => {
      throw new TypeError(SECRET);
    };
    const { status, text } = await post(DELETE, review());
    expect(status).toBe(500);
    expect(text).not.toContain(SECRET);
  });
});

describe("what is no review", () => {
  const cases: [string, string | object, number, string][] = [
    ["another version", review({}, { apiVersion: "admission.k8s.io/v1beta1" }), 400, "apiVersion"],
    ["another kind", review({}, { kind: "Pod" }), 400, "kind"],
    ["no uid", review({ uid: "" }), 400, "request.uid"],
    ["no request", { apiVersion: "admission.k8s.io/v1", kind: "AdmissionReview" }, 400, "request"],
    ["an operation nobody knows", review({ operation: "PEEK" }), 400, "request.operation"],
    ["groups that are no list", review({ userInfo: { username: "a", groups: "b" } }), 400, "request.userInfo.groups"],
    [
      "another resource",
      review({ resource: { group: "", version: "v1", resource: "secrets" } }),
      400,
      "request.resource",
    ],
    ["a pod that is none", review({ oldObject: { metadata: SECRET } }), 400, "request.oldObject.metadata"],
    ["half of it", JSON.stringify(review()).slice(0, 200), 400, "JSON"],
    ["nothing", "", 400, "JSON"],
    ["a list", "[]", 400, "AdmissionReview"],
    ["null", "null", 400, "AdmissionReview"],
    ["deep", `${"[".repeat(100_000)}${"]".repeat(100_000)}`, 400, "AdmissionReview"],
  ];
  test.each(cases)("%s", async (_what, body, code, field) => {
    const { status, text, json } = await post(DELETE, body);
    expect({ status, kind: json.kind }).toEqual({ status: code, kind: "Status" });
    expect(text).toContain(field);
    expect(text).not.toContain(SECRET);
    expect(lines.join("\n")).not.toContain(SECRET);
  });

  test("another method, path or content type", async () => {
    expect((await post(DELETE, "", {}, "GET")).status).toBe(405);
    expect((await post("/validate/everything", review())).status).toBe(404);
    expect((await post(DELETE, review(), { "Content-Type": "text/plain" })).status).toBe(415);
    expect((await post("/", review())).status).toBe(404);
  });

  test("3 MB are judged, 9 MB are not read", async () => {
    const padded = (bytes: number) => review({ object: { padding: "x".repeat(bytes) } });
    expect((await post(DELETE, padded(3_000_000))).json.response.allowed).toBe(false);
    expect((await post(DELETE, padded(9_000_000))).status).toBe(413);
  });
});

describe("many and slow", () => {
  test("1,000 at once are all answered", async () => {
    const answers = await Promise.all(
      Array.from(
        { length: 1_000 },
        async (_, index) => (await post(DELETE, review({ uid: `uid-${index}` }))).json.response,
      ),
    );
    expect(new Set(answers.map(({ uid }) => uid)).size).toBe(1_000);
    expect(answers.every(({ allowed }) => !allowed)).toBe(true);
    // One stubborn controller is one entry.
    expect(webhook.denials().map(({ count }) => count)).toEqual([1_000]);
  }, 30_000);

  test("a body that does not come is given up; honest ones do not wait for it", async () => {
    const head = `POST ${DELETE} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{`;
    const slow = raw(head);
    expect((await post(DELETE, review())).json.response.allowed).toBe(false);
    expect(await slow).toContain("408");
  });

  test("a body of unannounced length is refused", async () => {
    const head = `POST ${DELETE} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n{ }\r\n0\r\n\r\n`;
    expect(await raw(head)).toContain("411");
  });

  test("fragments of a handshake and plain HTTP harm nobody", async () => {
    const plain = await fetch(`http://127.0.0.1:${webhook.port}${DELETE}`).then(
      () => "answered",
      () => "refused",
    );
    expect(plain).toBe("refused");
    expect((await post(DELETE, review())).status).toBe(200);
  });
});

describe("its certificate", () => {
  test("is exchanged while connections stand", async () => {
    const held = await tls();
    expect(held.getPeerCertificate().subject.CN).toBe("first");
    webhook.reload(identities[1]!.pair);
    await until(async () => {
      const fresh = await tls();
      const { CN } = fresh.getPeerCertificate().subject;
      fresh.destroy();
      return CN === "second";
    });
    const body = JSON.stringify(review());
    const answered = received(held);
    held.write(
      `POST ${DELETE} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: ${body.length}\r\n\r\n${body}`,
    );
    expect(await answered).toContain("200 OK");
    held.destroy();
  });

  test("a port that is taken is said so", async () => {
    const second = startWebhook({
      host: "127.0.0.1",
      port: webhook.port,
      tls: identities[0]!.pair,
      view,
      clock: systemClock,
      metrics: new Metrics(),
      log,
    });
    expect(second).rejects.toThrow(WebhookListenError);
  });
});

test("stop finishes what runs", async () => {
  const answer = post(DELETE, review());
  // It waits for its second look by now, or for its first: either way it is answered.
  await until(async () => metrics.text().includes("holdfast_guard_reviews_total"));
  const [{ json }] = await Promise.all([answer, webhook.stop(20)]);
  expect(json.response.allowed).toBe(false);
});

test("every path has a rule, and metrics name each", async () => {
  for (const path of WEBHOOK_PATHS) expect((await post(path, "{}")).status).toBe(400);
});

function tls(): Promise<TLSSocket> {
  const { promise, resolve, reject } = Promise.withResolvers<TLSSocket>();
  const socket = connect({ host: "127.0.0.1", port: webhook.port, ca: CA, servername: "localhost" }, () =>
    resolve(socket),
  );
  socket.once("error", reject);
  return promise;
}

/** What comes back until the status line and headers are here, or the end. */
function received(socket: TLSSocket): Promise<string> {
  const { promise, resolve } = Promise.withResolvers<string>();
  let text = "";
  socket.on("data", (chunk) => {
    text += chunk.toString();
    if (text.includes("\r\n\r\n")) resolve(text);
  });
  socket.on("close", () => resolve(text));
  socket.on("error", () => resolve(text));
  return promise;
}

async function raw(bytes: string): Promise<string> {
  const socket = await tls();
  const answer = received(socket);
  socket.write(bytes);
  const text = await answer;
  socket.destroy();
  return text;
}

async function until(condition: () => Promise<boolean>): Promise<void> {
  const deadline = performance.now() + 5_000;
  while (!(await condition())) {
    if (performance.now() > deadline) throw new Error("waited in vain");
    await Bun.sleep(5);
  }
}
