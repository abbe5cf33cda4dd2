/**
 * What a person at a cut node reads: since when an answer is a copy, ages of
 * now, and what to ask for when there is none.
 */
import { describe, expect, test } from "bun:test";
import { startApiServer, type ApiServer } from "../../src/demo/api-server/api-server.ts";
import { eventually } from "../support/client.ts";
import { configMap, startEdge, type Edge } from "../support/edge.ts";

const LIST = "/api/v1/namespaces/shop/configmaps";
const KUBECTL = { "User-Agent": "kubectl/v1.37.2 (linux/amd64) kubernetes/1234567" };
const TABLE = { Accept: "application/json;as=Table;v=v1;g=meta.k8s.io" };

async function cut(apiServer: ApiServer, edge: Edge): Promise<void> {
  await apiServer.cut();
  await eventually(
    () => edge.client.get("/healthz"),
    ({ status }) => status === 503,
  );
}

describe("a warning says since when an answer is a copy", () => {
  test("to kubectl, for lists, objects and watches, while cut and not before", async () => {
    await using apiServer = await startApiServer({ objects: [configMap("a")] });
    await using edge = await startEdge({ apiServer });
    const targets = [LIST, `${LIST}?resourceVersion=0`, `${LIST}/a`, "/apis"];
    for (const target of targets) expect((await edge.client.get(target, KUBECTL)).headers.warning).toBeUndefined();
    await cut(apiServer, edge);
    for (const target of targets.slice(0, 3))
      expect((await edge.client.get(target, KUBECTL)).headers.warning).toMatch(
        /^299 - "Holdfast: the API server does not answer; this is a copy, last heard of at \d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ, \d+s ago"$/,
      );
    const watch = await edge.client.watch(`${LIST}?watch=1&timeoutSeconds=1`, KUBECTL);
    expect(watch.headers.warning).toStartWith("299");
    watch.close();
    // Discovery would say it once for every group.
    expect((await edge.client.get("/apis", KUBECTL)).headers.warning).toBeUndefined();
    // It names itself by its file.
    const warnedAs = async (agent: string) =>
      (await edge.client.get(LIST, { "User-Agent": `${agent}/v1.20.2 (linux/amd64) kubernetes/1234567` })).headers
        .warning;
    for (const name of ["kubectl.exe", "kubectl-1.20", "kubectl1.30.2", "kubectl_v1"])
      expect(await warnedAs(name)).toBeDefined();
    for (const name of ["kubectl-argo", "kubelet", "my-kubectl", ""]) expect(await warnedAs(name)).toBeUndefined();
  });

  test("also when the API server fails this request alone, and the copy is followed and live", async () => {
    await using apiServer = await startApiServer({ objects: [configMap("a")] });
    await using edge = await startEdge({ apiServer });
    const stream = "watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
    const watch = await edge.client.watch(`${LIST}?${stream}`);
    await watch.until((events) => events.length === 2);
    apiServer.nextStatus({ code: 500 }, { verb: "list", resource: "configmaps" });
    apiServer.nextStatus({ code: 500 }, { verb: "get", resource: "configmaps" });
    for (const target of [LIST, `${LIST}/a`]) {
      const { status, headers } = await edge.client.get(target, KUBECTL);
      expect([target, status, headers.warning]).toEqual([target, 200, expect.stringMatching(/^299 - "Holdfast/)]);
    }
    watch.close();
  });

  test.each(["kube-proxy/v1.37.2 (linux/amd64)", "k9s/v0.50", "kubectl-foo/v1", ""])("not to %p", async (agent) => {
    await using apiServer = await startApiServer({ objects: [configMap("a")] });
    await using edge = await startEdge({ apiServer });
    await edge.client.get(LIST);
    await cut(apiServer, edge);
    const reply = await edge.client.get(LIST, agent === "" ? {} : { "User-Agent": agent });
    expect([reply.status, reply.headers.warning]).toEqual([200, undefined]);
  });
});

test("the ages of a kept Table are those of now, in lists and of one object", async () => {
  const hourAgo = new Date(Date.now() - 3_600_000).toISOString().replace(/\.\d+/, "");
  const old = { ...configMap("a"), metadata: { name: "a", namespace: "shop", creationTimestamp: hourAgo } };
  await using apiServer = await startApiServer({ objects: [old, configMap("b")] });
  await using edge = await startEdge({ apiServer });
  const ages = (body: any) => body.rows.map(({ cells }: any) => cells.at(-1));
  const [oldest, then] = ages((await edge.client.get(LIST, TABLE)).json());
  const [alone] = ages((await edge.client.get(`${LIST}/b`, TABLE)).json());
  expect(oldest).toBe("60m");
  await cut(apiServer, edge);
  const [stillOldest] = await eventually(
    async () => ages((await edge.client.get(LIST, TABLE)).json()),
    ([, age]) => age !== then,
  );
  expect(stillOldest).toBe("60m");
  await eventually(
    async () => ages((await edge.client.get(`${LIST}/b`, TABLE)).json()),
    ([age]) => age !== alone,
  );
});

describe("who gets no answer is told what it was about and what is kept", () => {
  test.each([
    [
      "GET",
      `${LIST}/b`,
      'Cannot get configmaps "b" in namespace "shop": the API server cannot be reached; kept for this caller are configmaps in namespace "shop" with app=web as JSON',
    ],
    [
      "GET",
      "/api/v1/namespaces/shop/secrets/s",
      'Cannot get secrets "s" in namespace "shop": the API server cannot be reached; nothing of secrets is kept for this caller',
    ],
    [
      "GET",
      "/apis/apps/v1/deployments",
      "Cannot list deployments.apps: the API server cannot be reached; kept for this caller are all deployments as a Table",
    ],
    [
      "GET",
      "/api/v1/namespaces/shop/pods/p/log",
      'Cannot get pods/log "p" in namespace "shop": the API server cannot be reached; no copy of this is kept for this caller',
    ],
    ["GET", "/logs/", "Cannot get /logs/: the API server cannot be reached; no copy of this is kept for this caller"],
    [
      "DELETE",
      `${LIST}/b`,
      'Cannot delete configmaps "b" in namespace "shop": the API server cannot be reached, and nothing is queued; try again when the link is back',
    ],
    [
      "DELETE",
      LIST,
      'Cannot delete all configmaps in namespace "shop": the API server cannot be reached, and nothing is queued; try again when the link is back',
    ],
    [
      "PATCH",
      "/apis/apps/v1/namespaces/shop/deployments/d/scale",
      'Cannot patch deployments.apps/scale "d" in namespace "shop": the API server cannot be reached, and nothing is queued; try again when the link is back',
    ],
    [
      "POST",
      "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
      "Cannot review access: the API server cannot be reached, and no decision of it on this is remembered",
    ],
    [
      "POST",
      "/apis/authentication.k8s.io/v1/tokenreviews",
      "Cannot review a token: the API server cannot be reached, and no decision of it on this is remembered",
    ],
  ])("%s %s", async (method, target, message) => {
    await using apiServer = await startApiServer({ objects: [configMap("b")] });
    await using edge = await startEdge({ apiServer });
    await edge.client.get(`${LIST}?labelSelector=app%3Dweb`);
    await edge.client.get("/apis/apps/v1/deployments", TABLE);
    await cut(apiServer, edge);
    const reply = await edge.client.request(method, target, {
      body: "{}",
      headers: { "Content-Type": "application/json" },
    });
    expect([reply.status, reply.json().message]).toEqual([503, message]);
  });
});

test("who was told that it may read what is kept is told so while cut, after a restart too; who was not is not", async () => {
  await using apiServer = await startApiServer({ objects: [configMap("a")] });
  await using edge = await startEdge({ apiServer });
  const mayList = (resource: string) =>
    edge.client.request("POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", {
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({
        kind: "SelfSubjectAccessReview",
        apiVersion: "authorization.k8s.io/v1",
        spec: { resourceAttributes: { verb: "list", resource, namespace: "shop" } },
      }),
    });
  await edge.client.get(LIST);
  const online = await mayList("configmaps");
  expect(online.json().status.allowed).toBe(true);
  await mayList("secrets");
  await cut(apiServer, edge);
  await edge.restart();
  expect((await mayList("configmaps")).body.equals(online.body)).toBe(true);
  // Nothing of secrets is kept: what may be read of them is nothing.
  expect((await mayList("secrets")).status).toBe(503);
});
