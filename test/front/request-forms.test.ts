/**
 * The same question in other words: while cut it gets the copy that the plain
 * words would get, and online it is asked and kept once.
 */
import { describe, expect, test } from "bun:test";
import { parse } from "yaml";
import { startApiServer, type ApiServer } from "../../src/demo/api-server/api-server.ts";
import { requestInfo } from "../../src/front/request-info.ts";
import { eventually } from "../support/client.ts";
import { configMap, startEdge, type Edge } from "../support/edge.ts";

const SHOP = "/api/v1/namespaces/shop";
const LIST = `${SHOP}/configmaps`;
const WHOLE = "sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";

async function cut(apiServer: ApiServer, edge: Edge): Promise<void> {
  await apiServer.cut();
  await eventually(
    () => edge.client.get("/healthz"),
    ({ status }) => status === 503,
  );
}

const labelled = (name: string, labels: Record<string, string>) => ({
  ...configMap(name),
  metadata: { name, namespace: "shop", labels },
});

describe("/watch/ in the path", () => {
  test.each([
    ["/api/v1/watch/pods", { verb: "watch", resource: "pods", namespace: "", name: "" }],
    ["/api/v1/watch/namespaces/shop/pods", { verb: "watch", resource: "pods", namespace: "shop" }],
    ["/api/v1/watch/namespaces", { verb: "watch", resource: "namespaces", namespace: "" }],
    ["/apis/apps/v1/watch/deployments", { verb: "watch", group: "apps", version: "v1", resource: "deployments" }],
    ["/api/v1/watch", { resource: "" }],
    ["/api/v1/watch/nodes/n?fieldSelector=metadata.name%3Dm", { verb: "connect", resource: "" }],
  ])("%s", (target, meaning) => {
    expect(requestInfo("GET", target)).toMatchObject(meaning);
  });

  test.each([
    ["/api/v1/watch/nodes/n", "nodes", ""],
    ["/api/v1/watch/namespaces/shop", "namespaces", ""],
    ["/api/v1/watch/namespaces/shop/pods/p?fieldSelector=metadata.name%3D%3Dp", "pods", "shop"],
  ])("%s is a watch of one name", (target, resource, namespace) => {
    const info = requestInfo("GET", target);
    expect(info).toMatchObject({ verb: "watch", resource, namespace, name: "" });
    expect(info.query.get("fieldSelector")).toBe(`metadata.name=${target.split("?")[0]!.split("/").at(-1)}`);
  });

  test("only GET has it, and it hides no slash", () => {
    expect(requestInfo("POST", "/api/v1/watch/pods").resource).toBe("");
    expect(() => requestInfo("GET", "/api/v1/watch/namespaces/shop%2Fsecrets")).toThrow("encoded slashes");
  });

  test.each([
    "/api/v1/watch/configmaps",
    `/api/v1/watch/namespaces/shop/configmaps`,
    `${SHOP.replace("v1", "v1/watch")}/configmaps/a`,
  ])("%s is the watch of the list beside it, online and cut", async (path) => {
    await using apiServer = await startApiServer({ objects: [configMap("a")] });
    await using edge = await startEdge({ apiServer });
    const info = requestInfo("GET", path);
    const where = info.namespace === "" ? "/api/v1" : SHOP;
    const selector = encodeURIComponent(info.query.get("fieldSelector") ?? "");
    await edge.client.get(`${where}/configmaps?fieldSelector=${selector}`);
    const online = await edge.client.watch(`${path}?${WHOLE}`);
    await online.until((events) => events.length === 2);
    await cut(apiServer, edge);
    const offline = await edge.client.watch(`${path}?${WHOLE}`);
    await offline.until((events) => events.length === 2);
    expect(offline.events).toEqual(online.events);
    expect(apiServer.watchCount).toBeLessThanOrEqual(1);
    online.close();
    offline.close();
  });
});

test.each([
  ["labelSelector=a%3D1%2Cb%3D2", "labelSelector=b%3D2%2Ca%3D1"],
  ["labelSelector=a%3D1", "labelSelector=a%3D%3D1"],
  ["labelSelector=a%3D1", "labelSelector=%20a%20in%20(%201%20)"],
  ["labelSelector=a+in+(x%2C1)", "labelSelector=a+in+(1%2C+x)"],
  [
    "fieldSelector=metadata.name%3Da%2Cmetadata.namespace%3Dshop",
    "fieldSelector=metadata.namespace%3D%3Dshop%2Cmetadata.name%3Da",
  ],
])("who listed with %s is watched and answered with %s", async (kept, asked) => {
  await using apiServer = await startApiServer({ objects: [labelled("a", { a: "1", b: "2" }), configMap("c")] });
  await using edge = await startEdge({ apiServer });
  const online = await edge.client.get(`${LIST}?${kept}`);
  expect(online.json().items).toHaveLength(1);
  const since = apiServer.requests.length;
  const { resourceVersion } = online.json().metadata;
  const watch = await edge.client.watch(`${LIST}?${asked}&watch=1&resourceVersion=${resourceVersion}`);
  await eventually(() => apiServer.watchCount === 1);
  expect(apiServer.count({ verb: "list" }, since)).toBe(0);
  watch.close();
  await cut(apiServer, edge);
  expect((await edge.client.get(`${LIST}?${asked}`)).body.equals(online.body)).toBe(true);
});

test.each([
  [`${LIST}?nobody=knows`, `${LIST}`],
  [`${LIST}?nobody=knows&resourceVersion=0`, `${LIST}`],
  [`${LIST}/a?nobody=knows`, `${LIST}/a`],
  [`${SHOP}/configmaps/%61`, `${LIST}/a`],
  [`/api/v1/namespaces/%73hop/configmaps/a`, `${LIST}/a`],
  [`/apis/apps/v1?nobody=`, `/apis/apps/v1?nobody=`],
])("%s is answered while cut by what was kept for %s", async (asked, kept) => {
  await using apiServer = await startApiServer({ objects: [configMap("a")] });
  await using edge = await startEdge({ apiServer });
  const online = await edge.client.get(kept);
  await cut(apiServer, edge);
  const offline = await edge.client.get(asked);
  expect(offline.status).toBe(200);
  expect(offline.body.equals(online.body)).toBe(true);
});

test("with an unknown parameter the API server is asked while it is there, and nothing is followed for it", async () => {
  await using apiServer = await startApiServer({ objects: [configMap("a")] });
  await using edge = await startEdge({ apiServer });
  for (const query of ["nobody=knows", "nobody=knows&resourceVersion=0"]) await edge.client.get(`${LIST}?${query}`);
  const watch = await edge.client.watch(`${LIST}?nobody=knows&watch=1&timeoutSeconds=1`);
  await watch.ended;
  expect(apiServer.requests.filter(({ target }) => target.includes("nobody=knows"))).toHaveLength(3);
  expect(apiServer.count({ verb: "list" })).toBe(2);
});

test("an object's recording in one spelling is withdrawn in every other", async () => {
  await using apiServer = await startApiServer({ objects: [configMap("password")] });
  await using edge = await startEdge({ apiServer });
  await edge.client.get(`${LIST}/%70assword`);
  apiServer.remove("ConfigMap", "shop", "password");
  expect((await edge.client.get(`${LIST}/password`)).status).toBe(404);
  await cut(apiServer, edge);
  expect((await edge.client.get(`${LIST}/%70assword`)).status).toBe(503);
});

describe("forms of the answer", () => {
  test.each([
    ["application/yaml", "application/yaml"],
    ["application/yaml,application/json", "application/yaml"],
    ["application/json,application/yaml", "application/json"],
  ])("who accepts %s reads a JSON copy while cut as %s", async (accept, contentType) => {
    await using apiServer = await startApiServer({ objects: [configMap("a", { x: "1" })] });
    await using edge = await startEdge({ apiServer });
    const paths = [LIST, `${LIST}/a`, `${SHOP}/secrets`];
    const online = await Promise.all(paths.map((path) => edge.client.get(path)));
    await cut(apiServer, edge);
    for (const [index, path] of paths.entries()) {
      const offline = await edge.client.get(path, { Accept: accept });
      expect(offline.status).toBe(200);
      expect(offline.headers["content-type"]).toBe(contentType);
      expect(parse(offline.body.toString())).toEqual(online[index]!.json());
    }
  });

  test.each([`${LIST}?resourceVersion=0`, `${LIST}/a?resourceVersion=0`])(
    "%s as YAML is the API server's to answer while it is there, though a copy is live",
    async (target) => {
      await using apiServer = await startApiServer({ objects: [configMap("a")] });
      await using edge = await startEdge({ apiServer });
      await edge.client.get(`${LIST}?resourceVersion=0`);
      await edge.client.get(`${LIST}/a`);
      // The stand-in has no YAML; the real one has.
      expect((await edge.client.get(target, { Accept: "application/yaml" })).status).toBe(406);
    },
  );

  const aggregated = (version: string) =>
    `application/json;g=apidiscovery.k8s.io;v=${version};as=APIGroupDiscoveryList`;
  const OPENAPI = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";
  test.each([
    ["aggregated discovery alone", "/apis", aggregated("v2"), aggregated("v2")],
    [
      "aggregated discovery among others",
      "/apis",
      `${aggregated("v2")},${aggregated("v2beta1")},application/json`,
      aggregated("v2"),
    ],
    ["plain discovery, asked for by another client", "/api", "application/json", "application/json, */*"],
    ["OpenAPI v2 as protobuf", "/openapi/v2", OPENAPI, OPENAPI],
    ["OpenAPI v3", "/openapi/v3", "*/*", "application/json"],
    ["the version", "/version", "application/json", "*/*"],
    ["the keys", "/openid/v1/jwks", "*/*", "*/*"],
  ])("%s is kept", async (_, path, kept, asked) => {
    await using apiServer = await startApiServer({ objects: [configMap("a")] });
    await using edge = await startEdge({ apiServer });
    const online = await edge.client.get(path, { Accept: kept });
    expect(online.status).toBe(200);
    await cut(apiServer, edge);
    const offline = await edge.client.get(path, { Accept: asked });
    expect(offline.status).toBe(200);
    expect(offline.body.equals(online.body)).toBe(true);
    expect(offline.headers["content-type"]).toBe(online.headers["content-type"]!);
  });

  test("who cannot read a kept form is not given it", async () => {
    await using apiServer = await startApiServer({ objects: [configMap("a")] });
    await using edge = await startEdge({ apiServer });
    await edge.client.get("/apis", { Accept: aggregated("v2") });
    await edge.client.get(`${LIST}/a`, { Accept: "application/vnd.kubernetes.protobuf" });
    await cut(apiServer, edge);
    expect((await edge.client.get("/apis")).status).toBe(503);
    expect((await edge.client.get(`${LIST}/a`)).status).toBe(503);
  });

  test("one form of an object is read by whoever names it anywhere", async () => {
    await using apiServer = await startApiServer({ objects: [configMap("a")] });
    await using edge = await startEdge({ apiServer });
    const online = await edge.client.get(`${LIST}/a`);
    await cut(apiServer, edge);
    for (const accept of [
      "application/vnd.kubernetes.protobuf,application/json",
      "application/json;as=Table;v=v1;g=meta.k8s.io,application/json",
    ]) {
      const offline = await edge.client.get(`${LIST}/a`, { Accept: accept });
      expect(offline.body.equals(online.body)).toBe(true);
    }
  });
});
