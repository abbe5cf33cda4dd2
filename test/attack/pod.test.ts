/**
 * A pod with one small right: it reads ConfigMaps of its namespace, and nothing
 * else; no longer than the API server would let it; and it keeps nobody out.
 */

import { describe, expect, test } from "bun:test";
import { isBuilt } from "../support/binary.ts";
import { eventually } from "../support/client.ts";
import { configMap } from "../support/edge.ts";
import { MAPS, PODS, SECRET_TEXT, SECRETS, sent, startWorld, type World } from "./world.ts";

const as = (world: World, token = world.podToken()) => world.holdfast.clientWith({ token });
const event = (name: string, namespace = "shop") => ({
  body: JSON.stringify({
    kind: "Event",
    apiVersion: "v1",
    metadata: { name, namespace },
    involvedObject: { kind: "Pod", name: "web-0", namespace },
    reason: "Test",
    message: "x".repeat(200),
  }),
  headers: { "Content-Type": "application/json" },
});

describe.skipIf(!isBuilt)("a pod with one small right (needs dist/)", () => {
  test("reads nothing of what kubelet has read, in any form, online or cut", async () => {
    await using world = await startWorld();
    const pod = as(world);
    expect((await world.kubelet.get(SECRETS)).body.toString()).toContain(SECRET_TEXT);
    expect((await pod.get(MAPS)).status).toBe(200);
    const asked = [
      SECRETS,
      `${SECRETS}?resourceVersion=0`,
      `${SECRETS}/password`,
      "/api/v1/secrets",
      `${SECRETS}?watch=true&resourceVersion=0&timeoutSeconds=1`,
      "/api/v1/namespaces/shop/secrets/%70assword",
      PODS,
    ];
    const findsNothing = async () => {
      for (const path of [...asked, "/api/v1/configmaps", "/api/v1/namespaces/kube-system/configmaps"]) {
        const { status, body } = await pod.get(path);
        expect([403, 503]).toContain(status);
        expect(body.toString()).not.toContain(SECRET_TEXT);
      }
      expect((await pod.get(MAPS)).status).toBe(200);
    };
    // Before it was ever refused, and after.
    await world.cut();
    await findsNothing();
    await world.heal();
    for (const path of asked) expect((await pod.get(path)).status).toBe(403);
    await world.cut();
    await findsNothing();
  });

  test("whose token the API server refused reads nothing while cut, over a restart too", async () => {
    await using world = await startWorld();
    const pod = as(world);
    const brother = as(world, world.podToken("web-1"));
    for (const client of [pod, brother]) expect((await client.get(MAPS)).status).toBe(200);
    world.api.nextStatus({ code: 401 }, ({ path }) => path.includes("/secrets"), 3);
    expect((await pod.get(SECRETS)).status).toBe(401);
    await world.cut();
    expect((await pod.get(MAPS)).status).toBe(401);
    expect((await brother.get(MAPS)).status).toBe(200);
  });

  test("whose right was taken is answered from no copy ten seconds later", async () => {
    let isAllowed = true;
    await using world = await startWorld({ mayPods: () => isAllowed });
    const pod = as(world);
    expect((await pod.get(`${MAPS}?resourceVersion=0`)).status).toBe(200);
    await eventually(() => world.api.count({ resource: "configmaps", verb: "watch" }));
    expect((await pod.get(`${MAPS}?resourceVersion=0`)).status).toBe(200);
    isAllowed = false;
    const sinceMs = performance.now();
    await eventually(
      () => pod.get(`${MAPS}?resourceVersion=0`),
      ({ status }) => status === 403,
    );
    expect(performance.now() - sinceMs).toBeLessThan(12_500);
  }, 20_000);

  test("that may read Secrets gets them online from the API server each time, and none while cut where none are to be had", async () => {
    await using world = await startWorld({ mayPods: () => true, config: "limits: {podSecrets: 0s}\n" });
    const pod = as(world);
    const asked = () => world.api.count({ resource: "secrets", verb: "list" });
    expect((await pod.get(`${SECRETS}?resourceVersion=0`)).status).toBe(200);
    await eventually(() => world.api.count({ resource: "secrets", verb: "watch" }));
    expect((await pod.get(`${SECRETS}?resourceVersion=0`)).status).toBe(200);
    const before = asked();
    for (let n = 0; n < 3; n++) expect((await pod.get(`${SECRETS}?resourceVersion=0`)).status).toBe(200);
    expect(asked() - before).toBe(3);
    await world.cut();
    expect((await pod.get(SECRETS)).status).toBe(503);
    expect((await world.kubelet.get(PODS)).status).toBe(200);
  });

  test("refused by a plain path is refused by every spelling of it", async () => {
    let isAllowed = true;
    await using world = await startWorld({ mayPods: () => isAllowed });
    const pod = as(world);
    const spelled = `${MAPS}/%61`;
    expect((await pod.get(spelled)).status).toBe(200);
    isAllowed = false;
    expect((await pod.get(`${MAPS}/a`)).status).toBe(403);
    await world.cut();
    expect((await pod.get(spelled)).status).not.toBe(200);
  });

  test("writes no event while cut into a namespace that is not its own, and pushes none of kubelet's out", async () => {
    await using world = await startWorld({ mayPods: ({ namespace }) => namespace === "shop" });
    const pod = as(world);
    const post = (client: typeof pod, name: string, namespace = "shop") =>
      client
        .request("POST", `/api/v1/namespaces/${namespace}/events`, event(name, namespace))
        .then(({ status }) => status);
    for (const client of [pod, world.kubelet]) expect(await post(client, `online-${client === pod}`)).toBe(201);
    expect(await post(pod, "elsewhere", "kube-system")).toBe(403);
    await world.cut();
    expect(await post(pod, "elsewhere", "kube-system")).toBe(503);
    expect(await post(world.kubelet, "of-kubelet")).toBe(201);
    for (let n = 0; n < 300; n++) expect(await post(pod, `flood-${n}`)).toBe(201);
    await world.heal();
    await eventually(() => world.api.object("Event", "shop", "of-kubelet"));
  });

  test("is not taken for whom it impersonates while cut", async () => {
    await using world = await startWorld();
    const pod = as(world);
    expect((await pod.get(MAPS)).status).toBe(200);
    await world.cut();
    expect((await pod.get(MAPS, { "Impersonate-User": "system:node:edge-1" })).status).toBe(503);
    expect((await pod.get(SECRETS, { "Impersonate-User": "system:node:edge-1" })).status).toBe(503);
  });

  test("smuggles no request behind another, by length, chunks or a refused upgrade", async () => {
    await using world = await startWorld();
    const credential = `Host: localhost\r\nAuthorization: Bearer ${world.podToken()}\r\n`;
    const hidden = `GET ${SECRETS}/smuggled HTTP/1.1\r\n${credential}\r\n`;
    const post = (more: string, body: string) => `POST ${MAPS} HTTP/1.1\r\n${credential}${more}\r\n${body}`;
    const length = `Content-Length: ${hidden.length + 5}\r\n`;
    for (const text of [
      post(`${length}Transfer-Encoding: chunked\r\n`, `0\r\n\r\n${hidden}`),
      post(`Content-Length: 5\r\nContent-Length: ${hidden.length}\r\n`, `hello${hidden}`),
      post("Transfer-Encoding:\tchunked\r\nTransfer-Encoding: identity\r\n", `0\r\n\r\n${hidden}`),
      post("Transfer-Encoding: xchunked\r\n", `0\r\n\r\n${hidden}`),
      post("Content-Length : 0\r\n", hidden),
      post("Transfer-Encoding: chunked\r\n", `0;\n\r\n\r\n${hidden}`),
      `GET ${MAPS} HTTP/1.1\r\n${credential}X: a\r\n b: c\r\n\r\n${hidden}`,
      `GET /api/v1/namespaces/shop/pods/web-0/exec HTTP/1.1\r\n${credential}Connection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\r\n${hidden}`,
    ]) {
      const { received } = await sent(world, text, () => false);
      expect(received.match(/HTTP\/1\.1 [23]\d\d/g) ?? []).toEqual([]);
    }
    expect(world.api.requests.filter(({ target }) => target.includes("smuggled"))).toEqual([]);
  });

  test("that asks with ever new selectors is kept for a few of them, and kubelet is answered beside it", async () => {
    await using world = await startWorld();
    const pod = as(world);
    // Fast: after two seconds the whole of the collection stands for them.
    for (let round = 0; round < 4; round++) {
      const asked = Array.from({ length: 30 }, (_, n) =>
        pod.get(`${MAPS}?resourceVersion=0&labelSelector=a!%3D${round}-${n}`),
      );
      for (const { status } of await Promise.all(asked)) expect(status).toBe(200);
    }
    const followed = world.api.requests.filter(
      ({ verb, target }) => verb === "watch" && target.includes("labelSelector"),
    );
    const selectors = followed.map(({ target }) => new URLSearchParams(target.split("?")[1]).get("labelSelector"));
    expect(new Set(selectors).size).toBeWithin(16, 65);
    world.api.put(configMap("b"));
    expect((await world.kubelet.get(PODS)).status).toBe(200);
  });
});
