import { describe, expect, test } from "bun:test";
import { randomBytes } from "node:crypto";
import * as tls from "node:tls";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { startApiServer } from "../../src/demo/api-server/api-server.ts";
import { mintCluster } from "../../src/demo/api-server/mint.ts";
import { Identifier } from "../../src/callers/identify.ts";
import { Client, eventually } from "../support/client.ts";
import { configMap, startEdge } from "../support/edge.ts";

const LIST = "/api/v1/namespaces/shop/configmaps";

describe("who may read", () => {
  test("without a credential every path is 401, online and offline", async () => {
    await using apiServer = await startApiServer({ objects: [configMap("a")] });
    await using edge = await startEdge({ apiServer });
    const nobody = edge.clientWith({});
    await edge.client.get(LIST);
    const paths = [LIST, `${LIST}/a`, "/version", "/healthz", "/api//v1", `${LIST}?watch=true`];

    const online = await Promise.all(paths.map((path) => nobody.get(path)));
    await apiServer.cut();
    const offline = await Promise.all(paths.map((path) => nobody.get(path)));

    expect([...online, ...offline].map(({ status }) => status)).toEqual(Array(12).fill(401));
  });

  test("a certificate of another CA is no credential, whatever subject it claims", async () => {
    await using apiServer = await startApiServer({ objects: [configMap("a")] });
    await using edge = await startEdge({ apiServer });
    await edge.client.get(LIST);
    const rogue = edge.clientWith(mintCluster("rogue").clientCertificate("admin", ["system:masters"]));
    await apiServer.cut();
    expect((await rogue.get(LIST)).status).toBe(401);
  });

  test("a certificate of another subject is 403 with advice, and an expired one is 401", async () => {
    await using apiServer = await startApiServer({ objects: [configMap("a")] });
    await using edge = await startEdge({ apiServer });
    const other = edge.clientWith(apiServer.cluster.clientCertificate("kube-proxy", ["system:node-proxier"]));
    const expired = edge.clientWith(
      apiServer.cluster.clientCertificate("admin", ["system:masters"], {
        notBeforeMs: Date.now() - 7_200_000,
        notAfterMs: Date.now() - 3_600_000,
      }),
    );

    const reply = await other.get(LIST);

    expect(reply.status).toBe(403);
    expect(reply.json().message).toContain('clients: [{name: "kube-proxy"');
    expect((await expired.get(LIST)).status).toBe(401);
  });

  test("a certificate that ends in a cut is served until the return; one that had ended before is not", async () => {
    await using apiServer = await startApiServer({ objects: [configMap("a")] });
    await using edge = await startEdge({ apiServer });
    const endsMs = Date.now() + 4_000;
    const ending = apiServer.cluster.clientCertificate("admin", ["system:masters"], { notAfterMs: endsMs });
    const ended = apiServer.cluster.clientCertificate("admin", ["system:masters"], {
      notBeforeMs: Date.now() - 7_200_000,
      notAfterMs: Date.now() - 3_600_000,
    });
    const [first, later, before] = [ending, ending, ended].map((pair) => edge.clientWith(pair));
    expect((await first!.get(LIST)).status).toBe(200);
    await apiServer.cut();
    await eventually(async () => (await first!.get("/healthz")).status === 503);
    await Bun.sleep(Math.max(0, endsMs - Date.now()) + 1_500);
    for (const client of [first!, later!]) expect((await client.get(LIST)).status).toBe(200);
    expect((await before!.get(LIST)).status).toBe(401);
    // Nor does a restart within the cut end it.
    await edge.restart();
    const anew = edge.clientWith(ending);
    expect((await anew.get(LIST)).status).toBe(200);
    await eventually(async () => (await anew.get("/healthz")).status === 503);
    expect((await anew.get(LIST)).status).toBe(200);
    expect((await edge.clientWith(ended).get(LIST)).status).toBe(401);
    await apiServer.heal();
    await eventually(async () => (await anew.get(LIST)).status === 401);
    expect((await edge.clientWith(ending).get(LIST)).status).toBe(401);
  }, 30_000);

  test("a certificate with two names is its last one, as it is to the API server", () => {
    const own = { kind: "certificate", read: () => ({ certPem: "own", keyPem: "own" }) } as const;
    const node = { name: "system:node:a", groups: ["system:nodes"] };
    const identifier = new Identifier({ own, clients: [] } as never, () => node);
    const identify = (CN: string[]) => {
      const getPeerCertificate = () => ({ subject: { CN, O: "system:nodes" }, valid_to: "Jan  1 00:00:00 2100 GMT" });
      const socket = { authorized: true, getPeerCertificate };
      return identifier.identify({ headers: [], header: () => undefined, socket } as never);
    };
    expect(identify(["system:node:evil", "system:node:a"])).toMatchObject({ isOwn: true, nodeName: "a" });
    expect(() => identify(["system:node:a", "system:node:evil"])).toThrow('"system:node:evil" cannot be passed on');
  });

  test("a token reads offline only what that token read online", async () => {
    await using apiServer = await startApiServer({
      objects: [configMap("a")],
      tokens: { one: { name: "one", groups: [] }, two: { name: "two", groups: [] } },
    });
    await using edge = await startEdge({ apiServer });
    const one = edge.clientWith({ token: "one" });
    const two = edge.clientWith({ token: "two" });
    await one.get(LIST);
    await one.get(`${LIST}/a`);
    await two.get("/version");

    await apiServer.cut();

    expect(
      (
        await eventually(
          () => one.get(LIST),
          ({ status }) => status === 200,
        )
      ).json().items,
    ).toHaveLength(1);
    expect((await two.get(LIST)).status).toBe(503);
    expect((await two.get(`${LIST}/a`)).status).toBe(503);
    expect((await edge.clientWith({ token: "guess" }).get(LIST)).status).toBe(503);
  });

  test("a token that the API server refused later reads nothing offline", async () => {
    await using apiServer = await startApiServer({
      objects: [configMap("a")],
      tokens: { one: { name: "one", groups: [] } },
    });
    await using edge = await startEdge({ apiServer });
    const one = edge.clientWith({ token: "one" });
    await one.get(LIST);
    await one.get("/version");
    apiServer.authorize = () => false;
    expect((await one.get(LIST)).status).toBe(403);

    await apiServer.cut();

    expect((await one.get(LIST)).status).toBe(503);
  });

  test("impersonation is the API server's to judge, and is never answered from a copy", async () => {
    await using apiServer = await startApiServer({ objects: [configMap("a")] });
    await using edge = await startEdge({ apiServer });
    await edge.client.get(LIST);
    await edge.client.get(LIST, { "Impersonate-User": "bob" });
    expect(apiServer.requests.some(({ headers }) => headers["impersonate-user"] === "bob")).toBe(true);
    await apiServer.cut();
    expect((await edge.client.get(LIST, { "Impersonate-User": "bob" })).status).toBe(503);
  });

  test("X-Remote headers and doubled Authorization are refused", async () => {
    await using apiServer = await startApiServer();
    await using edge = await startEdge({ apiServer });
    expect((await edge.client.get("/version", { "X-Remote-User": "root" })).status).toBe(400);
    expect((await edge.client.get("/version", { X_Remote_Group: "system:masters" })).status).toBe(400);
  });

  test("a token never lies on the disk or in the log", async () => {
    const token = `marker-${randomBytes(8).toString("hex")}`;
    await using apiServer = await startApiServer({
      objects: [configMap("a")],
      tokens: { [token]: { name: "one", groups: [] } },
    });
    await using edge = await startEdge({ apiServer });
    await edge.clientWith({ token }).get(LIST);
    await edge.clientWith({ token: `${token}-wrong` }).get(LIST);
    await edge.stop();
    const found = Bun.spawnSync(["grep", "-rl", token, edge.stateDir]).stdout.toString();
    expect(found).toBe("");
    expect(edge.log.join("\n")).not.toContain(token);
  });

  test("the state folder of another cluster answers nothing", async () => {
    await using first = await startApiServer({ objects: [configMap("a")] });
    await using edge = await startEdge({ apiServer: first });
    await edge.client.get(LIST);
    await edge.stop();
    await using second = await startApiServer();
    await second.cut();
    await using other = await startEdge({ apiServer: second, stateDir: edge.stateDir });
    expect((await other.client.get(LIST)).status).toBe(503);
    expect(await (await fetch(`${other.healthUrl}/readyz?verbose`)).text()).toContain("another cluster's");
  });

  test("the state of a cluster is set aside for another that answers, and there again when it comes back while cut", async () => {
    await using first = await startApiServer({ objects: [configMap("of-first")] });
    await using second = await startApiServer({ objects: [configMap("of-second")] });
    const names = (reply: { readonly body: Buffer }) =>
      (JSON.parse(reply.body.toString()) as { items: { metadata: { name: string } }[] }).items.map(
        ({ metadata }) => metadata.name,
      );
    await using edge = await startEdge({ apiServer: first });
    expect(names(await edge.client.get(LIST))).toEqual(["of-first"]);
    await edge.stop();
    {
      await using other = await startEdge({ apiServer: second, stateDir: edge.stateDir });
      expect(names(await other.client.get(LIST))).toEqual(["of-second"]);
      await eventually(() => existsSync(join(edge.stateDir, "other-clusters")));
      await second.cut();
      // Rows of the first would be under the same caller's name.
      expect(names(await other.client.get(LIST))).toEqual(["of-second"]);
    }
    await first.cut();
    await using back = await startEdge({ apiServer: first, stateDir: edge.stateDir });
    expect(names(await back.client.get(LIST))).toEqual(["of-first"]);
  });
});

describe("what is passed on", () => {
  test("raw targets reach the API server as sent; dot segments, // and encoded slashes are 400", async () => {
    await using apiServer = await startApiServer();
    await using edge = await startEdge({ apiServer });
    for (const target of [
      "/api/v1/namespaces/shop/services/a/proxy/b%2Fc",
      "/apis/x/y?q=a+b|c&d=%22",
      '/apis/x/y?q="a"',
      "/apis/x/a|b%3A",
    ]) {
      await edge.client.get(target);
      expect(apiServer.requests.at(-1)!.target).toBe(target);
    }
    // A bad escape is the API server's to refuse, in its own words.
    const pair = apiServer.cluster.clientCertificate("admin", ["system:masters"]);
    const direct = new Client({ url: apiServer.url, ca: apiServer.cluster.ca, ...pair });
    const badEscape = "/api/v1/namespaces/shop/configmaps/%zz";
    const [here, there] = [await edge.client.get(badEscape), await direct.get(badEscape)];
    expect([here.status, here.body.toString()]).toEqual([there.status, there.body.toString()]);
    for (const target of [
      "/api/v1/../../healthz",
      "/api/%2e%2e/x",
      "/api//v1",
      "//api/v1",
      "/api/v1/./pods",
      `${LIST}/a%2Fb`,
    ])
      expect((await edge.client.get(target)).status).toBe(400);
  });

  test("a chunked body with Expect: 100-continue arrives whole", async () => {
    await using apiServer = await startApiServer({ objects: [configMap("a")] });
    await using edge = await startEdge({ apiServer });
    const body = JSON.stringify({ ...configMap("big"), data: { x: "y".repeat(900_000) } });
    const reply = await edge.client.request("POST", LIST, {
      headers: { "Content-Type": "application/json", "Transfer-Encoding": "chunked", Expect: "100-continue" },
      body,
    });
    expect(reply.status).toBe(201);
    expect((apiServer.object("ConfigMap", "shop", "big") as any).data.x).toHaveLength(900_000);
  });

  test("an upgrade carries bytes both ways, exactly", async () => {
    await using apiServer = await startApiServer({
      objects: [
        {
          kind: "Pod",
          apiVersion: "v1",
          metadata: { name: "web-0", namespace: "shop" },
          spec: { containers: [{ name: "app" }] },
        },
      ],
    });
    await using edge = await startEdge({ apiServer });
    const pair = apiServer.cluster.clientCertificate("admin", ["system:masters"]);
    const socket = tls.connect({
      host: "127.0.0.1",
      port: Number(new URL(edge.url).port),
      ca: readFileSync(join(edge.stateDir, "pki", "local-ca.crt")),
      cert: pair.cert,
      key: pair.key,
      ALPNProtocols: ["http/1.1"],
    });
    const received: Buffer[] = [];
    socket.on("data", (chunk: Buffer) => received.push(chunk));
    socket.write(
      "POST /api/v1/namespaces/shop/pods/web-0/portforward HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\nX-Stream-Protocol-Version: portforward.k8s.io\r\n\r\n",
    );
    await eventually(() => Buffer.concat(received).toString("latin1").includes("\r\n\r\n"));
    const head = Buffer.concat(received).toString("latin1");
    expect(head).toStartWith("HTTP/1.1 101");
    received.length = 0;
    const sent = randomBytes(3_000_000);
    socket.write(sent);
    await eventually(() => received.reduce((sum, part) => sum + part.length, 0) >= sent.length);
    expect(Buffer.concat(received).equals(sent)).toBe(true);
    socket.destroy();
  });

  test("several API servers: a read goes to the next one within the same request", async () => {
    const cluster = mintCluster();
    await using first = await startApiServer({ cluster, objects: [configMap("a")] });
    await using second = await startApiServer({ cluster, objects: [configMap("b")] });
    await using edge = await startEdge({ apiServer: first, config: `servers: ["${second.url}"]\n` });
    await first.cut();
    const reply = await edge.client.get(`${LIST}/b`);
    expect(reply.status).toBe(200);
  });
});
