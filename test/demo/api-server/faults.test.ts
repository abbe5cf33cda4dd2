import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { connect, type Socket } from "node:net";
import { startApiServer, type ApiServer } from "../../../src/demo/api-server/api-server.ts";
import { demoPod, demoWorld } from "../../../src/demo/api-server/seed.ts";
import { Client, eventually } from "../../contract/client.ts";

const PODS = "/api/v1/namespaces/shop/pods";

let api: ApiServer;
let client: Client;

beforeEach(async () => {
  api = await startApiServer({ objects: demoWorld() });
  client = clientOf(api);
});

afterEach(async () => {
  client[Symbol.dispose]();
  await api.stop();
});

const clientOf = ({ url, cluster }: ApiServer) =>
  new Client({ url, ca: cluster.ca, ...cluster.clientCertificate("admin", ["system:masters"]) });
const codeOf = (asked: Promise<unknown>): Promise<string> =>
  asked.then(
    () => "answered",
    (error: { code?: string }) => error.code ?? "no code",
  );

describe("the wire", () => {
  test("cut resets a live watch and refuses new connections; heal listens on the same port", async () => {
    using watch = await client.watch(`${PODS}?watch=1`);
    const { port } = api;
    await api.cut();
    await watch.rest();
    expect(await codeOf(client.get(PODS))).toBe("ECONNREFUSED");
    await api.heal();
    expect(api.port).toBe(port);
    expect((await client.get(PODS)).status).toBe(200);
  });

  test("blackHole keeps connections open and silent; what it held back arrives after heal", async () => {
    using watch = await client.watch(`${PODS}?watch=1&resourceVersion=${api.resourceVersion}`);
    api.blackHole();
    api.put(demoPod("web-0"));
    const asked = client.get(PODS);
    const event = watch.next();
    const first = await Promise.race([event, asked, Bun.sleep(50).then(() => "silence")]);
    expect(first).toBe("silence");
    await api.heal();
    expect((await event).type).toBe("MODIFIED");
    expect((await asked).status).toBe(200);
  });

  test("bytes and connections are counted", async () => {
    const before = api.link.bytesDown;
    await client.get(PODS);
    expect(api.link.bytesDown).toBeGreaterThan(before);
    expect(api.link.connections).toBe(1);
  });

  test("latency delays and bandwidth bounds what passes", async () => {
    await client.get(PODS);
    api.link.latencyMs = 40;
    const startedAtMs = performance.now();
    await client.get(PODS);
    expect(performance.now() - startedAtMs).toBeGreaterThan(70);
  });

  test("a raw client may close one side and still be answered", async () => {
    const socket: Socket = connect({ port: api.port, host: api.host, allowHalfOpen: true });
    socket.end("no TLS at all");
    const closed = await new Promise<boolean>((resolve) =>
      socket
        .on("close", () => resolve(true))
        .on("error", () => {})
        .resume(),
    );
    expect(closed).toBe(true);
  });
});

describe("answers", () => {
  test("nextStatus answers as told, as often as told, where it matches", async () => {
    api.nextStatus({ code: 429, retryAfterSeconds: 3 }, { verb: "list", resource: "pods" }, 2);
    expect((await client.get("/api/v1/nodes")).status).toBe(200);
    const refused = await client.get(PODS);
    expect([refused.status, refused.headers["retry-after"], refused.json.reason, refused.json.details]).toEqual([
      429,
      "3",
      "TooManyRequests",
      { retryAfterSeconds: 3 },
    ]);
    expect([(await client.get(PODS)).status, (await client.get(PODS)).status]).toEqual([429, 200]);
  });

  test("stallMidBody sends half and then nothing, until heal breaks it off", async () => {
    api.stallMidBody({ verb: "list" });
    const asked = codeOf(client.get(PODS));
    expect(await Promise.race([asked, Bun.sleep(50).then(() => "pending")])).toBe("pending");
    expect(api.requests.at(-1)!.bytesSent).toBeGreaterThan(0);
    await api.heal();
    expect(await asked).toBe("ECONNRESET");
  });

  test.each([["http1.1"], ["http2"]] as const)(
    "truncateNextList breaks off in the middle, over %s",
    async (protocol) => {
      api.truncateNextList();
      const tls = { ca: api.cluster.ca, ...api.cluster.clientCertificate("admin") };
      const list = async () => (await fetch(`${api.url}${PODS}`, { tls, protocol } as RequestInit)).text();
      expect(await codeOf(list())).not.toBe("answered");
      expect(await list()).toContain("PodList");
    },
  );

  test("slow delays every match until it is told 0", async () => {
    api.slow(60, { resource: "pods" });
    const startedAtMs = performance.now();
    await client.get(PODS);
    expect(performance.now() - startedAtMs).toBeGreaterThan(50);
    api.slow(0);
    expect((await client.get(PODS)).status).toBe(200);
  });
});

describe("watches", () => {
  test("cutWatchFrameInHalf leaves half an event and breaks the connection", async () => {
    using watch = await client.watch(`${PODS}?watch=1&resourceVersion=${api.resourceVersion}`);
    expect(api.cutWatchFrameInHalf()).toBe(1);
    const failure = await watch.next().catch((error: Error) => error);
    expect(String(failure)).toContain('watch ended within {"type":"BOOKMARK"');
  });

  test.each([
    ["application/json", '{"type":"MODIFIED","object":}}\n'],
    ["application/vnd.kubernetes.protobuf", "\0\0\0\u0005\u00ff\u00ff\u00ff\u00ff\u00ff"],
  ])("invalidFrame sends what is no event, in %s", async (accept, expected) => {
    const body = client.get(`${PODS}?watch=1&resourceVersion=${api.resourceVersion}`, { accept });
    await eventually(async () => api.invalidFrame() === 1);
    api.endWatches();
    expect((await body).rawBytes.toString("latin1")).toBe(expected);
  });

  test("failWatches ends with an ERROR event, endWatches without one", async () => {
    using failed = await client.watch(`${PODS}?watch=1&resourceVersion=${api.resourceVersion}`);
    api.failWatches();
    expect((await failed.rest()).map(({ object }) => [object.kind, object.code])).toEqual([["Status", 410]]);
    using ended = await client.watch(`${PODS}?watch=1&resourceVersion=${api.resourceVersion}`);
    api.endWatches({ resource: "nodes" });
    expect(api.endWatches({ resource: "pods" })).toBe(1);
    expect(await ended.rest()).toEqual([]);
  });

  test("bookmarks come at the interval and on demand, only to who allows them", async () => {
    api.behaviour.bookmarkIntervalMs = 20;
    using watch = await client.watch(`${PODS}?watch=1&allowWatchBookmarks=true&resourceVersion=${api.resourceVersion}`);
    expect((await watch.next()).object).toEqual({
      kind: "Pod",
      apiVersion: "v1",
      metadata: { resourceVersion: api.resourceVersion },
      spec: { containers: null },
      status: {},
    });
    expect((await watch.next()).type).toBe("BOOKMARK");
  });
});

describe("history", () => {
  test("compact makes an old watch Expired: as an event, or as a status", async () => {
    const old = api.resourceVersion;
    api.put(demoPod("web-0"));
    api.compact();
    using watch = await client.watch(`${PODS}?watch=1&resourceVersion=${old}`);
    expect(watch.status).toBe(200);
    expect(await watch.next()).toMatchObject({
      type: "ERROR",
      object: { code: 410, reason: "Expired", message: `too old resource version: ${old} (${api.resourceVersion})` },
    });
    api.behaviour.expiredAs = "status";
    expect((await client.get(`${PODS}?watch=1&resourceVersion=${old}`)).status).toBe(410);
  });

  test("compact makes continue and Exact Expired; the token in the refusal carries on", async () => {
    const { resourceVersion, continue: token } = (await client.get(`${PODS}?limit=2`)).json.metadata;
    api.put(demoPod("web-0"));
    api.compact();
    const refused = await client.get(`${PODS}?limit=2&continue=${token}`);
    expect([refused.status, refused.json.reason]).toEqual([410, "Expired"]);
    const rest = await client.get(`${PODS}?continue=${refused.json.metadata.continue}`);
    expect(rest.json.items.map((item: any) => item.metadata.name)).toEqual(["web-2", "web-3", "web-4"]);
    expect((await client.get(`${PODS}?resourceVersion=${resourceVersion}&resourceVersionMatch=Exact`)).status).toBe(
      410,
    );
  });

  test("the window is bounded in changes", async () => {
    await using small = await startApiServer({ objects: demoWorld(), history: { changes: 3 } });
    using other = clientOf(small);
    const old = small.resourceVersion;
    for (let at = 0; at < 4; at++) small.put(demoPod("web-0"));
    using watch = await other.watch(`${PODS}?watch=1&resourceVersion=${old}`);
    expect((await watch.next()).type).toBe("ERROR");
  });

  test("rollback brings back old content and old revisions, and breaks connections", async () => {
    const before = api.resourceVersion;
    using watch = await client.watch(`${PODS}?watch=1&resourceVersion=${before}`);
    api.remove("Pod", "shop", "web-0");
    api.put(demoPod("web-9", 9));
    api.rollback(2);
    await watch.rest();
    const list = (await client.get(PODS)).json;
    expect([list.metadata.resourceVersion, list.items.map((item: any) => item.metadata.name)]).toEqual([
      before,
      ["web-0", "web-1", "web-2", "web-3", "web-4"],
    ]);
    expect((await client.get(`${PODS}?resourceVersion=${Number(before) + 2}`)).status).toBe(504);
  });
});

describe("who may", () => {
  test("authorize decides, in the real server's words", async () => {
    api.addToken("reader", { name: "reader", groups: ["readers"] });
    api.authorize = (user, info) => user.name !== "reader" || (info.verb === "list" && info.resource === "pods");
    using reader = new Client({ url: api.url, ca: api.cluster.ca, token: "reader" });
    expect((await reader.get(PODS)).status).toBe(200);
    const refused = await reader.get(`${PODS}/web-0`);
    expect([refused.status, refused.json.message]).toEqual([
      403,
      'pods "web-0" is forbidden: User "reader" cannot get resource "pods" in API group "" in the namespace "shop"',
    ]);
  });

  test("a certificate from elsewhere and no credential at all are 401", async () => {
    await using elsewhere = await startApiServer();
    using rogue = new Client({
      url: api.url,
      ca: api.cluster.ca,
      ...elsewhere.cluster.clientCertificate("admin", ["system:masters"]),
    });
    using nobody = new Client({ url: api.url, ca: api.cluster.ca });
    expect([
      (await rogue.get(PODS)).status,
      (await nobody.get(PODS)).status,
      (await nobody.get("/readyz")).text,
    ]).toEqual([401, 401, "ok"]);
  });

  test("requests are logged with their user, and counted", async () => {
    const since = api.requests.length;
    await client.get(PODS);
    await client.get(`${PODS}/web-0`);
    expect(api.requests.slice(since)).toMatchObject([
      { method: "GET", target: PODS, user: "admin", verb: "list", status: 200 },
      { verb: "get", name: "web-0" },
    ]);
    expect([api.count({ verb: "list" }, since), api.count({ verb: "watch" }, since)]).toEqual([1, 0]);
  });
});
