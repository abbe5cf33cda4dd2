import { describe, expect, test } from "bun:test";
import { startApiServer } from "../../src/demo/api-server/api-server.ts";
import { eventually } from "../support/client.ts";
import { configMap, startEdge } from "../support/edge.ts";

const LIST = "/api/v1/namespaces/shop/configmaps";
const STREAM = `${LIST}?watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true`;

describe("reads survive a cut", () => {
  test("an object read once is answered from the copy when the API server is gone, byte for byte", async () => {
    await using apiServer = await startApiServer({ objects: [configMap("a", { x: "1" })] });
    await using edge = await startEdge({ apiServer });

    const online = await edge.client.get(`${LIST}/a`);
    await apiServer.cut();
    const offline = await eventually(
      () => edge.client.get(`${LIST}/a`),
      ({ status }) => status === 200,
    );

    expect(offline.body.equals(online.body)).toBe(true);
    expect(offline.headers["content-type"]).toBe(online.headers["content-type"]!);
  });

  test("a list read once is answered whole, also after a restart while cut", async () => {
    await using apiServer = await startApiServer({ objects: [configMap("a"), configMap("b"), configMap("a-0")] });
    await using edge = await startEdge({ apiServer });

    const online = await edge.client.get(LIST);
    await apiServer.cut();
    const offline = await edge.client.get(LIST);
    await edge.restart();
    const restarted = await edge.client.get(LIST);

    expect(offline.status).toBe(200);
    expect(offline.body.toString()).toBe(online.body.toString());
    expect(restarted.body.toString()).toBe(online.body.toString());
  });

  test("an empty list that was observed is 200 and empty; one never observed is 503, never 404", async () => {
    await using apiServer = await startApiServer({ objects: [configMap("a")] });
    await using edge = await startEdge({ apiServer });

    await edge.client.get("/api/v1/namespaces/shop/secrets");
    await apiServer.cut();
    const observed = await edge.client.get("/api/v1/namespaces/shop/secrets");
    const never = await edge.client.get("/api/v1/namespaces/shop/services");
    const object = await edge.client.get("/api/v1/namespaces/shop/secrets/none");

    expect(observed.status).toBe(200);
    expect(observed.json().items).toEqual([]);
    expect(never.status).toBe(503);
    expect(never.json()).toMatchObject({ kind: "Status", reason: "ServiceUnavailable" });
    expect(never.headers["retry-after"]).toBeUndefined();
    expect(object.status).toBe(503);
  });

  test("a write while cut is 503 at once and says that nothing is queued", async () => {
    await using apiServer = await startApiServer({ objects: [configMap("a")] });
    await using edge = await startEdge({ apiServer });
    await edge.client.get(LIST);

    await apiServer.cut();
    const reply = await edge.client.request("DELETE", `${LIST}/a`);

    expect(reply.status).toBe(503);
    expect(reply.json().message).toContain("nothing is queued");
    await apiServer.heal();
    expect(apiServer.object("ConfigMap", "shop", "a")).toBeDefined();
  });

  test("a write that was on its way when the link was lost says that nobody knows what became of it", async () => {
    await using apiServer = await startApiServer({ objects: [configMap("a")] });
    await using edge = await startEdge({ apiServer });
    await edge.client.get(LIST);

    apiServer.freezeStorage();
    const under = edge.client.request("DELETE", `${LIST}/a`);
    await Bun.sleep(200);
    await apiServer.cut();
    const reply = await under;

    expect(reply.status).toBe(503);
    expect(reply.json().message).toBe(
      'Cannot delete configmaps "a" in namespace "shop": the API server cannot be reached, and nothing is queued; whether it was carried out is not known; try again when the link is back',
    );
    const late = await edge.client.request("DELETE", `${LIST}/a`);
    expect(late.json().message).not.toContain("not known");
  });

  test("lists with different selectors on one path never mix", async () => {
    const labelled = { ...configMap("b"), metadata: { name: "b", namespace: "shop", labels: { app: "web" } } };
    await using apiServer = await startApiServer({ objects: [configMap("a"), labelled] });
    await using edge = await startEdge({ apiServer });

    await edge.client.get(`${LIST}?labelSelector=app%3Dweb`);
    await apiServer.cut();
    const same = await edge.client.get(`${LIST}?labelSelector=app%3Dweb`);
    const wider = await edge.client.get(LIST);
    const other = await edge.client.get(`${LIST}?labelSelector=app%3Ddb`);

    expect(same.json().items.map((item: any) => item.metadata.name)).toEqual(["b"]);
    expect(wider.status).toBe(503);
    expect(other.status).toBe(503);
  });

  test("a Table, metadata alone and protobuf come back as they were asked for", async () => {
    await using apiServer = await startApiServer({ objects: [configMap("a", { x: "1" })] });
    await using edge = await startEdge({ apiServer });
    const forms = [
      "application/json;as=Table;v=v1;g=meta.k8s.io,application/json",
      "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io,application/json",
      "application/vnd.kubernetes.protobuf,application/json",
    ];

    const online = await Promise.all(forms.map((accept) => edge.client.get(LIST, { Accept: accept })));
    await apiServer.cut();
    for (const [index, accept] of forms.entries()) {
      const offline = await edge.client.get(LIST, { Accept: accept });
      expect(offline.status).toBe(200);
      expect(offline.headers["content-type"]).toBe(online[index]!.headers["content-type"]!);
      if (accept.includes("protobuf")) expect(offline.body.equals(online[index]!.body)).toBe(true);
      else expect(offline.json()).toEqual(online[index]!.json());
    }
  });

  test("discovery is kept as it was asked for, and If-None-Match still gets 304", async () => {
    await using apiServer = await startApiServer();
    await using edge = await startEdge({ apiServer });
    const accept = { Accept: "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json" };

    const online = await edge.client.get("/apis", accept);
    await edge.client.get("/version");
    await apiServer.cut();
    const offline = await eventually(
      () => edge.client.get("/apis", accept),
      ({ status }) => status === 200,
    );
    const version = await edge.client.get("/version");
    const unchanged = await edge.client.get("/apis", { ...accept, "If-None-Match": String(online.headers["etag"]) });

    expect(offline.body.equals(online.body)).toBe(true);
    expect(offline.headers["content-type"]).toBe(online.headers["content-type"]!);
    expect(version.status).toBe(200);
    expect(unchanged.status).toBe(304);
  });

  test("custom resources are kept without knowing their schema", async () => {
    const definition = {
      kind: "CustomResourceDefinition",
      apiVersion: "apiextensions.k8s.io/v1",
      metadata: { name: "widgets.example.com" },
      spec: {
        group: "example.com",
        scope: "Namespaced",
        names: { plural: "widgets", singular: "widget", kind: "Widget", listKind: "WidgetList" },
        versions: [
          {
            name: "v1",
            served: true,
            storage: true,
            schema: { openAPIV3Schema: { type: "object", "x-kubernetes-preserve-unknown-fields": true } },
          },
        ],
      },
    };
    await using apiServer = await startApiServer({ objects: [configMap("a"), definition] });
    await using edge = await startEdge({ apiServer });
    const path = "/apis/example.com/v1/namespaces/shop/widgets";
    const created = await edge.client.request("POST", path, {
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({
        apiVersion: "example.com/v1",
        kind: "Widget",
        metadata: { name: "w" },
        spec: { odd: { nested: [1, null, "x"] } },
      }),
    });
    expect(created.status).toBe(201);

    const online = await edge.client.get(path);
    await apiServer.cut();
    const offline = await edge.client.get(path);

    expect(online.json().items).toHaveLength(1);
    expect(offline.json()).toEqual(online.json());
  });
});

describe("a cut is not an event", () => {
  test("a streaming list stays open through the cut and then carries only what changed", async () => {
    await using apiServer = await startApiServer({ objects: [configMap("a"), configMap("b")] });
    await using edge = await startEdge({ apiServer });
    const watch = await edge.client.watch(STREAM);
    await watch.until((events) => events.at(-1)?.type === "BOOKMARK");
    expect(watch.events.map(({ type }) => type)).toEqual(["ADDED", "ADDED", "BOOKMARK"]);
    expect(watch.events[2]!.object.metadata.annotations).toEqual({ "k8s.io/initial-events-end": "true" });
    const lists = apiServer.count({ verb: "list", resource: "configmaps" });

    await apiServer.cut();
    apiServer.put(configMap("c"));
    apiServer.remove("ConfigMap", "shop", "a");
    apiServer.edit("ConfigMap", "shop", "b", (object) => ({ ...object, data: { x: "2" } }));
    expect(watch.isOpen).toBe(true);
    await apiServer.heal();

    await watch.until((events) => events.length >= 6);
    expect(watch.events.slice(3).map(({ type, object }) => `${type} ${object.metadata.name}`)).toEqual([
      "ADDED c",
      "DELETED a",
      "MODIFIED b",
    ]);
    expect(apiServer.count({ verb: "list", resource: "configmaps" })).toBe(lists);
    watch.close();
  });

  test("after compaction one list brings the difference and a bookmark", async () => {
    await using apiServer = await startApiServer({ objects: [configMap("a"), configMap("b"), configMap("d")] });
    await using edge = await startEdge({ apiServer });
    const watch = await edge.client.watch(STREAM);
    await watch.until((events) => events.at(-1)?.type === "BOOKMARK");
    const lists = apiServer.count({ verb: "list", resource: "configmaps" });

    await apiServer.cut();
    apiServer.edit("ConfigMap", "shop", "b", (object) => ({ ...object, data: { x: "2" } }));
    apiServer.put(configMap("c"));
    apiServer.remove("ConfigMap", "shop", "a");
    apiServer.remove("ConfigMap", "shop", "d");
    const again = apiServer.put(configMap("d", { again: "yes" }));
    apiServer.compact();
    await apiServer.heal();

    await watch.until((events) => events.slice(4).some(({ type }) => type === "BOOKMARK"));
    const seen = watch.events.slice(4).map(({ type, object }) => `${type} ${object.metadata.name ?? ""}`.trim());
    // What changed at the list's own moment goes last: it alone stands there.
    expect(seen).toEqual(["MODIFIED b", "ADDED c", "DELETED d", "DELETED a", "ADDED d", "BOOKMARK"]);
    expect(watch.events.at(-1)!.object.metadata.resourceVersion).toBe(apiServer.resourceVersion);
    expect(
      watch.events.find(
        ({ type, object }) =>
          type === "ADDED" && object.metadata.name === "d" && object.metadata.uid === (again as any).metadata.uid,
      ),
    ).toBeDefined();
    expect(apiServer.count({ verb: "list", resource: "configmaps" })).toBe(lists + 1);
    watch.close();
  });

  test("twenty equal watchers share one upstream watch", async () => {
    await using apiServer = await startApiServer({ objects: [configMap("a")] });
    await using edge = await startEdge({ apiServer });

    const watches = await Promise.all(Array.from({ length: 20 }, () => edge.client.watch(STREAM)));
    await Promise.all(watches.map((watch) => watch.until((events) => events.at(-1)?.type === "BOOKMARK")));
    apiServer.put(configMap("b"));
    await Promise.all(
      watches.map((watch) =>
        watch.until((events) => events.at(-1)?.type === "ADDED" && events.at(-1)?.object.metadata.name === "b"),
      ),
    );

    expect(apiServer.watchCount).toBe(1);
    for (const watch of watches) watch.close();
  });

  test("a client that restarts while cut lists and watches as before", async () => {
    await using apiServer = await startApiServer({ objects: [configMap("a")] });
    await using edge = await startEdge({ apiServer });
    const first = await edge.client.get(`${LIST}?resourceVersion=0`);
    await apiServer.cut();

    const list = await eventually(
      () => edge.client.get(`${LIST}?resourceVersion=0&limit=500`),
      ({ status }) => status === 200,
    );
    const { resourceVersion } = list.json().metadata;
    const watch = await edge.client.watch(
      `${LIST}?watch=true&resourceVersion=${resourceVersion}&allowWatchBookmarks=true`,
    );
    const ahead = await edge.client.watch(`${LIST}?watch=true&resourceVersion=${Number(resourceVersion) + 100}`);
    await apiServer.heal();
    apiServer.put(configMap("b"));
    await watch.until((events) => events.some(({ object }) => object.metadata.name === "b"));

    expect(list.json().items).toEqual(first.json().items);
    // In the API server's form: an answer, an ERROR event, the end.
    expect(ahead.status).toBe(200);
    expect(ahead.events.map(({ type, object }) => `${type} ${object.code}`)).toEqual(["ERROR 410"]);
    watch.close();
  });

  test("a watch ends cleanly after timeoutSeconds", async () => {
    await using apiServer = await startApiServer({ objects: [configMap("a")] });
    await using edge = await startEdge({ apiServer });
    const watch = await edge.client.watch(`${STREAM}&timeoutSeconds=1`);
    expect(await watch.ended).toBe("clean");
    expect(watch.events.at(-1)!.type).toBe("BOOKMARK");
  });

  test("a watch at the resourceVersion of a restart's copy goes on without a list", async () => {
    await using apiServer = await startApiServer({ objects: [configMap("a")] });
    await using edge = await startEdge({ apiServer });
    const before = await edge.client.watch(STREAM);
    await before.until((events) => events.at(-1)?.type === "BOOKMARK");
    await edge.restart();
    await before.ended;
    const last = before.events.at(-1)!.object.metadata.resourceVersion;
    apiServer.put(configMap("b"));
    const lists = apiServer.count({ verb: "list" });

    const after = await edge.client.watch(`${LIST}?watch=true&resourceVersion=${last}&allowWatchBookmarks=true`);
    await after.until((events) => events.some(({ object }) => object.metadata.name === "b"));

    expect(after.status).toBe(200);
    expect(apiServer.count({ verb: "list" })).toBe(lists);
    after.close();
  });
});
