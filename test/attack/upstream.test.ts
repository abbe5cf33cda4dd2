/**
 * A hostile upstream: an interceptor with a certificate of its own, a page in
 * the API server's place, one that redirects, floods, or lies.
 */

import { describe, expect, test } from "bun:test";
import { gzipSync } from "node:zlib";
import { readFileSync } from "node:fs";
import { startApiServer } from "../../src/demo/api-server/api-server.ts";
import { isBuilt, startBinary } from "../support/binary.ts";
import { eventually, type Client } from "../support/client.ts";
import { configMap } from "../support/edge.ts";
import { MAPS, PODS, SECRETS, startTrap, startWorld, type World } from "./world.ts";

const rssMb = ({ holdfast }: World) =>
  Number(/VmHWM:\s+(\d+)/.exec(readFileSync(`/proc/${holdfast.pid}/status`, "utf8"))![1]) / 1_000;

describe.skipIf(!isBuilt)("a hostile upstream (needs dist/)", () => {
  test("with another CA's certificate sees no request, and its word counts for nothing", async () => {
    await using world = await startWorld();
    const { port } = world.api;
    await world.api.stop();
    await using interceptor = await startApiServer({ port, objects: [configMap("forged")] });
    const answer = await eventually(
      () => world.kubelet.get(PODS),
      ({ status }) => status === 200,
    );
    expect(answer.json().items).toHaveLength(2);
    expect((await world.holdfast.clientWith({ token: "secret-token" }).get(MAPS)).status).toBe(503);
    // It was dialled, by the probe and for requests.
    await eventually(() => interceptor.link.accepted >= 3);
    expect(interceptor.requests).toEqual([]);
  });

  test("that redirects sends nobody anywhere, neither us nor our client", async () => {
    await using world = await startWorld();
    using trap = await startTrap();
    for (const status of [301, 302, 307, 308])
      world.api.answerInstead(
        { status, headers: { location: `https://127.0.0.1:${trap.port}${SECRETS}` } },
        { resource: "secrets" },
        1,
      );
    for (let n = 0; n < 4; n++) {
      const answer = await world.kubelet.get(SECRETS);
      expect(answer.status).toBe(503);
      expect(answer.headers["location"]).toBeUndefined();
    }
    expect(trap.visits()).toBe(0);
  });

  test.each([
    ["a login page", { status: 200, body: "<html>log in</html>" }],
    [
      "an empty list of something else",
      { status: 200, body: '{"items":[]}', headers: { "content-type": "application/json" } },
    ],
    ["a plain 404", { status: 404, body: "404 page not found" }],
    ["a plain 401", { status: 401, body: "who are you" }],
  ])("%s in its place takes nothing away, and nothing of it is kept", async (_, answer) => {
    await using world = await startWorld();
    const clients = [world.kubelet, world.holdfast.clientWith({ token: world.podToken() })];
    for (const client of clients) expect((await client.get(MAPS)).status).toBe(200);
    world.api.answerInstead(answer);
    const names = async (client: Client) => {
      const { status, json } = await client.get(MAPS);
      return status === 200 ? json().items.map(({ metadata }: any) => metadata.name) : status;
    };
    for (const client of clients) await eventually(async () => (await names(client)).length === 1);
    await world.cut();
    for (const client of clients) expect(await names(client)).toEqual(["a"]);
  });

  test("whose half a megabyte unfolds to five hundred costs no memory and keeps kubelet waiting for nothing", async () => {
    await using world = await startWorld({ mayPods: () => true });
    const filling = gzipSync(`${"x".repeat(1e6)}"}}`);
    const parts = [gzipSync('{"kind":"ConfigMapList","apiVersion":"v1","metadata":{"resourceVersion":"5"},"items":[')];
    for (let n = 0; n < 500; n++)
      parts.push(
        gzipSync(
          `${n === 0 ? "" : ","}{"metadata":{"name":"c${n}","namespace":"unfolds","uid":"u${n}","resourceVersion":"4"},"data":{"a":"`,
        ),
        filling,
      );
    const headers = { "content-type": "application/json", "content-encoding": "gzip", "audit-id": "x" };
    world.api.answerInstead(
      { status: 200, body: Buffer.concat([...parts, gzipSync("]}")]), headers },
      ({ namespace }) => namespace === "unfolds",
    );
    let isOver = false;
    const asked = world.kubelet
      .get("/api/v1/namespaces/unfolds/configmaps", { "Accept-Encoding": "gzip", Accept: "application/json" })
      .finally(() => (isOver = true));
    let slowestMs = 0;
    while (!isOver) {
      const beganMs = performance.now();
      expect((await world.kubelet.get(PODS)).status).toBe(200);
      slowestMs = Math.max(slowestMs, performance.now() - beganMs);
    }
    expect((await asked).body.length).toBeLessThan(2e6);
    expect(slowestMs).toBeLessThan(2_000);
    expect(rssMb(world)).toBeLessThan(250);
  }, 20_000);

  test("is not dialled with verification switched off: such an environment ends the start", async () => {
    await using api = await startApiServer();
    for (const [name, value] of [
      ["NODE_TLS_REJECT_UNAUTHORIZED", "0"],
      ["BUN_CONFIG_VERBOSE_FETCH", "curl"],
    ] as const)
      await expect(startBinary({ apiServer: api, env: { [name]: value } })).rejects.toThrow(name);
  });
});
