/**
 * Whose word an answer is. The bodies are kube-apiserver's own, or what was
 * seen to answer in its place.
 */
import { expect, test } from "bun:test";
import { protobufStatus } from "../../src/demo/api-server/render.ts";
import { statusBody } from "../../src/kube/status.ts";
import { askedForm, isVersionDocument, whoseWord, type AskedForm, type Word } from "../../src/kube/whose-word.ts";
import { envelope } from "../../src/kube/protobuf-wire.ts";

const JSON_TYPE = "application/json";
const PROTOBUF = "application/vnd.kubernetes.protobuf";
const HTML = "<!DOCTYPE html><html><title>Log in</title></html>";
const SIGNED = { "audit-id": "6c1b5c0e-1f3e-4a53-8b1a-0a1c3a4b5c6d" };
const VERSION = '{"major":"1","minor":"37","gitVersion":"v1.37.2","gitCommit":"x","platform":"linux/amd64"}';

const POD = "/api/v1/namespaces/shop/pods/web-0";
const pods = askedForm("GET", "/api/v1/pods?limit=500");
const pod = askedForm("GET", POD);
const logs = askedForm("GET", `${POD}/log?follow=true`);
const behindProxy = askedForm("GET", `${POD}/proxy/x?a=b`);
const watch = askedForm("GET", "/api/v1/pods?watch=true");
const widgets = askedForm("GET", "/apis/example.com/v1/widgets");
const widget = askedForm("GET", "/apis/example.com/v1/namespaces/shop/widgets/w");
const path = (target: string) => askedForm("GET", target);
const status = (code: number) => statusBody({ code, reason: "Forbidden", message: "no" }, "json");

function judge(asked: AskedForm, code: number, type: string, body: string | Uint8Array, headers = {}) {
  const all = new Map(Object.entries<string>({ "content-type": type, ...headers }));
  const start = typeof body === "string" ? new TextEncoder().encode(body) : body;
  return whoseWord(asked, {
    status: code,
    header: (name) => all.get(name),
    start,
    isWhole: true,
  });
}

const yaml = "apiVersion: v1\ncode: 403\nkind: Status\nmessage: no\n";
const cbor = Buffer.from("d9d9f7a2446b696e6446537461747573446d6f7265426e6f", "hex");

test.each<[string, AskedForm, number, string, string | Uint8Array, Record<string, string>, Word]>([
  ["a list", pods, 200, JSON_TYPE, '{"kind":"PodList","apiVersion":"v1","metadata":{},"items":[]}', {}, "answer"],
  [
    "a list as its author indents it",
    pods,
    200,
    JSON_TYPE,
    '{\n  "kind": "PodList",\n  "apiVersion": "v1"\n}',
    {},
    "answer",
  ],
  ["a list in protobuf", pods, 200, PROTOBUF, envelope("v1", "PodList", []), {}, "answer"],
  ["a Table", pods, 200, JSON_TYPE, '{"kind":"Table","apiVersion":"meta.k8s.io/v1","rows":[]}', {}, "answer"],
  [
    "custom resources, kind last",
    widgets,
    200,
    JSON_TYPE,
    '{"apiVersion":"example.com/v1","items":[],"kind":"WidgetList"}',
    {},
    "answer",
  ],
  [
    "an object with a member of its own first",
    widget,
    200,
    JSON_TYPE,
    '{"alpha":{"a":[1,"}"]},"apiVersion":"example.com/v1","kind":"Widget"}',
    {},
    "answer",
  ],
  ["YAML", pods, 200, "application/yaml", "apiVersion: v1\nitems: []\nkind: PodList\n", {}, "answer"],
  [
    "a delete's Status",
    askedForm("DELETE", POD),
    200,
    JSON_TYPE,
    '{"kind":"Status","apiVersion":"v1","status":"Success"}',
    {},
    "answer",
  ],
  [
    "a scale",
    askedForm("GET", "/apis/example.com/v1/namespaces/shop/widgets/w/scale"),
    200,
    JSON_TYPE,
    '{"kind":"Scale","apiVersion":"autoscaling/v1"}',
    {},
    "answer",
  ],
  ["a watch's head", watch, 200, "application/json;stream=watch", "", {}, "answer"],
  [
    "APIVersions, without an apiVersion",
    path("/api"),
    200,
    JSON_TYPE,
    '{"kind":"APIVersions","versions":["v1"]}',
    {},
    "answer",
  ],
  [
    "aggregated discovery",
    path("/apis"),
    200,
    `${JSON_TYPE};g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList`,
    '{"kind":"APIGroupDiscoveryList","apiVersion":"apidiscovery.k8s.io/v2"}',
    {},
    "answer",
  ],
  ["a version document", path("/version"), 200, JSON_TYPE, VERSION, {}, "answer"],
  ["OpenAPI v3's root", path("/openapi/v3"), 200, JSON_TYPE, '{"paths":{"api":{}}}', {}, "answer"],
  [
    "OpenAPI v2 in protobuf",
    path("/openapi/v2"),
    200,
    "application/com.github.proto-openapi.spec.v2.v1.0+protobuf",
    "\n\u00032.0",
    {},
    "answer",
  ],
  ["the cluster's keys", path("/openid/v1/jwks"), 200, "application/jwk-set+json", '{"keys":[]}', {}, "answer"],

  ["403, JSON", pods, 403, JSON_TYPE, status(403), {}, "refusal"],
  [
    "401, protobuf",
    pods,
    401,
    PROTOBUF,
    protobufStatus({
      code: 401,
      message: "Unauthorized",
      reason: "Unauthorized",
    }),
    {},
    "refusal",
  ],
  ["403, YAML", pods, 403, "application/yaml", yaml, {}, "refusal"],
  ["403, CBOR", pods, 403, "application/cbor", cbor, {}, "refusal"],
  ["404 of a group's own resource", pods, 404, JSON_TYPE, status(404), {}, "refusal"],
  ["a refused watch", watch, 403, JSON_TYPE, status(403), {}, "refusal"],
  ["refused discovery", path("/apis"), 403, JSON_TYPE, status(403), {}, "refusal"],
  ["refused logs", logs, 403, JSON_TYPE, status(403), {}, "refusal"],

  ["logs", logs, 200, "text/plain", "started\n", {}, "unsaid"],
  ["a pod's own page behind proxy", behindProxy, 200, "text/html", HTML, SIGNED, "unsaid"],
  ["a pod's own 404 behind proxy", behindProxy, 404, "text/html", HTML, SIGNED, "unsaid"],
  ["a pod's own redirect behind proxy", behindProxy, 302, "text/html", "", SIGNED, "unsaid"],
  ["health", path("/healthz"), 200, "text/plain", "ok", {}, "unsaid"],
  ["failing health", path("/readyz"), 500, "text/plain", "[+]ping ok\n[-]etcd failed\n", SIGNED, "unsaid"],
  ["a group that is not there", widgets, 404, "text/plain; charset=utf-8", "404 page not found\n", SIGNED, "unsaid"],
  [
    "429 of priority and fairness",
    pods,
    429,
    "text/plain; charset=utf-8",
    "Too many requests, please try again later.\n",
    SIGNED,
    "unsaid",
  ],
  [
    "504 of the timeout filter, without a kind",
    pods,
    504,
    "text/plain",
    '{"metadata":{},"status":"Failure","reason":"Timeout","code":504}\n',
    SIGNED,
    "unsaid",
  ],
  ["503 of an aggregated API that is away", widgets, 503, "text/plain", "service unavailable\n", SIGNED, "unsaid"],
  ["not modified", path("/apis"), 304, "", "", SIGNED, "unsaid"],
  ["OpenAPI's redirect to the current hash", path("/openapi/v3/api/v1"), 301, "text/html", "", SIGNED, "unsaid"],

  ["404 in plain text", pods, 404, "text/plain; charset=utf-8", "404 page not found\n", {}, "foreign"],
  ["403 as a page", pods, 403, "text/html", HTML, {}, "foreign"],
  ["401 as JSON of somebody else's", pods, 401, JSON_TYPE, '{"error":"unauthorized"}', {}, "foreign"],
  ["429 of a balancer", pods, 429, "text/plain", "slow down\n", {}, "unsaid"],
  ["400 of Go's own server", pods, 400, "text/plain; charset=utf-8", "400 Bad Request", {}, "unsaid"],
  ["400 as a page", pods, 400, "text/html", HTML, {}, "foreign"],
  ["502 as a page", pods, 502, "text/html", HTML, {}, "foreign"],
  ["200 as a page", pods, 200, "text/html", HTML, {}, "foreign"],
  ["200 as a page that claims to be JSON", pods, 200, JSON_TYPE, HTML, {}, "foreign"],
  ["200 with nothing", pod, 200, JSON_TYPE, "", {}, "foreign"],
  ["200 as JSON of somebody else's", pod, 200, JSON_TYPE, '{"status":"ok"}', {}, "foreign"],
  ["a list of another group's", pods, 200, JSON_TYPE, '{"kind":"PodList","apiVersion":"v9"}', {}, "foreign"],
  ["an object in a list's place", pods, 200, JSON_TYPE, '{"kind":"Pod","apiVersion":"v1"}', {}, "foreign"],
  ["a redirect", pods, 302, "", "", {}, "foreign"],
  ["a redirect that is signed", pods, 302, "", "", SIGNED, "foreign"],
  ["a watch as a page", watch, 200, "text/html", HTML, {}, "foreign"],
  ["a version as a page", path("/version"), 200, "text/html", HTML, {}, "foreign"],
  ["a version as JSON of somebody else's", path("/version"), 200, JSON_TYPE, '{"version":"2.1"}', {}, "foreign"],
  ["health as a page", path("/healthz"), 200, "text/html", HTML, {}, "foreign"],
  ["logs as a login page", logs, 200, "text/html", HTML, {}, "foreign"],
])("%s", (_, asked, code, type, body, headers, word) => {
  expect(judge(asked, code, type, body, headers)).toBe(word);
});

test("what is signed passes, and is neither a refusal nor an answer to be kept", () => {
  expect(judge(pods, 403, "text/html", HTML, SIGNED)).toBe("unsaid");
  expect(judge(pod, 200, JSON_TYPE, "", SIGNED)).toBe("unsaid");
});

test("byte by byte an answer is judged the same, once it has said enough", () => {
  const bodies: [AskedForm, number, string | Uint8Array, Word][] = [
    [pods, 200, '{"kind":"PodList","apiVersion":"v1","items":[{"a":"\\"}"}]}', "answer"],
    [pods, 200, envelope("v1", "PodList", [new Uint8Array(300)]), "answer"],
    [widgets, 200, '{"apiVersion":"example.com/v1","items":[{}],"kind":"WidgetList"}', "answer"],
    [pods, 403, status(403), "refusal"],
    [pods, 200, HTML, "foreign"],
    [pods, 200, '{"error":{"code":[1,2,{"x":null}]},"ok":false}', "foreign"],
    [path("/version"), 200, VERSION, "answer"],
  ];
  for (const [asked, code, body, word] of bodies) {
    const bytes = typeof body === "string" ? new TextEncoder().encode(body) : body;
    const header = (name: string) => (name === "content-type" ? JSON_TYPE : undefined);
    for (let size = 0; size <= bytes.length; size++) {
      const isWhole = size === bytes.length;
      const said = whoseWord(asked, {
        status: code,
        header,
        start: bytes.subarray(0, size),
        isWhole,
      });
      expect(said ?? (isWhole ? "nothing" : word)).toBe(word);
    }
  }
});

test("only a version document is one", () => {
  const bytes = (text: string) => new TextEncoder().encode(text);
  expect(isVersionDocument(bytes(VERSION))).toBe(true);
  expect(isVersionDocument(bytes('{\n  "major": "1",\n  "minor": "37+",\n  "gitVersion": "v1.37.2-eks"\n}'))).toBe(
    true,
  );
  for (const other of ["", HTML, "404 page not found", '{"gitVersion":"v1"}', '{"kind":"Status","apiVersion":"v1"}'])
    expect(isVersionDocument(bytes(other))).toBe(false);
});

test("what a request asks for follows from method and target", () => {
  const object = (groupVersion: string, isList = false) => ({ form: "object", groupVersion, isList });
  const rows: [string, string, object][] = [
    ["GET", "/api/v1/namespaces", object("v1", true)],
    ["GET", "/api/v1/namespaces/shop", object("v1")],
    ["PUT", "/api/v1/namespaces/shop/finalize", object("")],
    ["GET", "/apis/apps/v1/namespaces/shop/deployments", object("apps/v1", true)],
    ["POST", "/apis/apps/v1/namespaces/shop/deployments", object("apps/v1")],
    ["POST", "/api/v1/namespaces/shop/serviceaccounts/default/token", object("")],
    ["GET", "/apis/apps/v1/deployments?watch=1", { form: "watch" }],
    ["GET", "/apis/apps/v1/deployments?watch=false", object("apps/v1", true)],
    ["GET", "/api/v1/watch/pods", { form: "watch" }],
    ["GET", "/api/v1/namespaces/shop/services/web/proxy/", { form: "free" }],
    ["GET", "/apis/apps/v1", { form: "discovery" }],
    ["GET", "/version", { form: "version" }],
    ["GET", "/metrics", { form: "free" }],
  ];
  for (const [method, target, form] of rows)
    expect([target, askedForm(method, target)]).toEqual([target, form as never]);
});
