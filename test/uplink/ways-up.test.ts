import { expect, test } from "bun:test";
import { startApiServer } from "../../src/demo/api-server/api-server.ts";
import { eventually } from "../support/client.ts";
import { startConnectProxy } from "../support/connect-proxy.ts";
import { configMap, startEdge } from "../support/edge.ts";

const LIST = "/api/v1/namespaces/shop/configmaps";
const STREAM = `${LIST}?watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true`;

test("everything goes up through the kubeconfig's proxy-url: requests, watches, upgrades", async () => {
  await using apiServer = await startApiServer({ objects: [configMap("a")] });
  await using proxy = await startConnectProxy();
  const text = apiServer.kubeconfig({ user: "admin", groups: ["system:masters"] });
  const document = Bun.YAML.parse(text) as any;
  document.clusters[0].cluster["proxy-url"] = proxy.url;
  await using edge = await startEdge({ apiServer, kubeconfig: JSON.stringify(document) });

  expect((await edge.client.get(LIST)).status).toBe(200);
  const watch = await edge.client.watch(STREAM);
  await watch.until((events) => events.at(-1)?.type === "BOOKMARK");
  apiServer.put(configMap("b"));
  await watch.until((events) => events.some(({ object }) => object.metadata.name === "b"));

  expect(proxy.targets.length).toBeGreaterThan(0);
  expect(new Set(proxy.targets)).toEqual(new Set([new URL(apiServer.url).host]));
  watch.close();
});

test("an API server on IPv6 and a listener on IPv6 are as good as on IPv4", async () => {
  await using apiServer = await startApiServer({ host: "::1", objects: [configMap("a")] });
  expect(apiServer.url).toContain("[::1]");
  await using edge = await startEdge({ apiServer });
  expect((await edge.client.get(LIST)).json().items).toHaveLength(1);
  await apiServer.cut();
  expect((await edge.client.get(LIST)).status).toBe(200);
});

test("in a black hole a kept list is answered within the patience of a caller, the next at once", async () => {
  await using apiServer = await startApiServer({ objects: [configMap("a")] });
  await using edge = await startEdge({ apiServer });
  await edge.client.get(LIST);
  await edge.client.get("/version");

  apiServer.blackHole();
  const first = await edge.client.get(LIST);
  const health = await eventually(
    async () => (await (await fetch(`${edge.healthUrl}/metrics`)).text()).includes("holdfast_upstream_up 0"),
    Boolean,
    20_000,
  );
  const unseen = await edge.client.get("/api/v1/namespaces/shop/secrets");

  expect(first.status).toBe(200);
  expect(health).toBe(true);
  expect(unseen.status).toBe(503);
  await apiServer.heal();
  await eventually(
    () => edge.client.get("/api/v1/namespaces/shop/secrets"),
    ({ status }) => status === 200,
    20_000,
  );
}, 60_000);

test("a watch that was open through a black hole carries what changed, without a list", async () => {
  await using apiServer = await startApiServer({ objects: [configMap("a")] });
  await using edge = await startEdge({ apiServer });
  const watch = await edge.client.watch(STREAM);
  await watch.until((events) => events.at(-1)?.type === "BOOKMARK");
  const lists = apiServer.count({ verb: "list", resource: "configmaps" });

  apiServer.blackHole();
  await edge.client.get(LIST);
  await eventually(
    async () => (await (await fetch(`${edge.healthUrl}/metrics`)).text()).includes("holdfast_upstream_up 0"),
    Boolean,
    20_000,
  );
  apiServer.put(configMap("b"));
  await apiServer.heal();
  await watch.until((events) => events.some(({ object }) => object.metadata.name === "b"), 20_000);

  expect(watch.isOpen).toBe(true);
  expect(watch.events.filter(({ object }) => object.metadata.name === "b")).toHaveLength(1);
  // The one list is the client's own, sent before the silence was noticed.
  expect(apiServer.count({ verb: "list", resource: "configmaps" })).toBeLessThanOrEqual(lists + 1);
  watch.close();
}, 60_000);

test("a restored backup ends watches with 410, and what is kept follows it", async () => {
  await using apiServer = await startApiServer({ objects: [configMap("a")], bookmarkIntervalMs: 200 });
  await using edge = await startEdge({ apiServer });
  const watch = await edge.client.watch(STREAM);
  await watch.until((events) => events.at(-1)?.type === "BOOKMARK");
  for (let i = 0; i < 20; i++) apiServer.put(configMap(`later-${i}`));
  await watch.until((events) => events.filter(({ type }) => type === "ADDED").length === 21);

  apiServer.rollback(15);
  // A watch does not tell; the next list or write that goes up does.
  await eventually(
    () => edge.client.get(LIST),
    (reply) => reply.status === 200 && reply.json().metadata.resourceVersion === apiServer.resourceVersion,
  );

  await watch.ended;
  expect(watch.events.at(-1)).toMatchObject({ type: "ERROR", object: { code: 410 } });
  await eventually(
    () => edge.client.get(`${LIST}?resourceVersion=0`),
    (reply) =>
      reply.status === 200 &&
      reply.json().items.length ===
        apiServer.objects("ConfigMap").filter((object) => (object as any).metadata.namespace === "shop").length,
  );
});

test("a token in the kubeconfig serves local certificates of the same user", async () => {
  await using apiServer = await startApiServer({
    objects: [configMap("a")],
    tokens: { secret: { name: "admin", groups: ["system:masters"] } },
  });
  await using edge = await startEdge({ apiServer, kubeconfig: apiServer.kubeconfig({ token: "secret" }) });
  const reply = await eventually(
    () => edge.client.get(LIST),
    ({ status }) => status === 200,
  );
  expect(reply.json().items).toHaveLength(1);
  expect(apiServer.requests.at(-1)!.user).toBe("admin");
});
