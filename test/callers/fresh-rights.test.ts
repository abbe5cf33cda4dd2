/**
 * A right that ended ends here too, within ten seconds, while the API server is
 * there; and what that costs.
 */
import { describe, expect, test } from "bun:test";
import { FreshRights } from "../../src/callers/fresh-rights.ts";
import { startApiServer } from "../../src/demo/api-server/api-server.ts";
import { FreshAnswers } from "../../src/front/fresh-answers.ts";
import { UpstreamRefusedError } from "../../src/uplink/scope-source.ts";
import type { Client } from "../support/client.ts";
import { eventually } from "../support/client.ts";
import { configMap, startEdge } from "../support/edge.ts";
import { ShiftedClock } from "../support/shifted-clock.ts";

const LIST = "/api/v1/namespaces/shop/configmaps";
const SECRETS = "/api/v1/namespaces/shop/secrets";
const REVIEWS = { resource: "selfsubjectaccessreviews" };
const secret = { kind: "Secret", apiVersion: "v1", metadata: { name: "s", namespace: "shop" }, data: {} };

async function start() {
  const clock = new ShiftedClock();
  const apiServer = await startApiServer({
    objects: [configMap("a"), secret],
    tokens: { pod: { name: "pod", groups: [] }, other: { name: "other", groups: [] } },
  });
  const edge = await startEdge({ apiServer, clock });
  let isAllowed = true;
  apiServer.authorize = (user, { resource }) =>
    user.name !== "pod" || isAllowed || resource === "" || resource.startsWith("selfsubject");
  return {
    apiServer,
    clock,
    edge,
    pod: edge.clientWith({ token: "pod" }),
    other: edge.clientWith({ token: "other" }),
    revoke: () => void (isAllowed = false),
    async [Symbol.asyncDispose]() {
      await edge[Symbol.asyncDispose]();
      await apiServer[Symbol.asyncDispose]();
    },
  };
}

/** Lists and waits until the copy is live: what follows is answered from it. */
async function follow(client: Client, world: Awaited<ReturnType<typeof start>>, path = LIST) {
  expect((await client.get(`${path}?resourceVersion=0`)).status).toBe(200);
  await eventually(() => world.apiServer.watchCount > 0);
}

describe("a right that was taken is not answered from a copy later than ten seconds", () => {
  const asks: readonly (readonly [string, (client: Client) => Promise<number>])[] = [
    ["a list", async (client) => (await client.get(`${LIST}?resourceVersion=0`)).status],
    ["a narrower list", async (client) => (await client.get(`${LIST}?resourceVersion=0&labelSelector=a%3Db`)).status],
    ["a get", async (client) => (await client.get(`${LIST}/a?resourceVersion=0`)).status],
    [
      "a watch",
      async (client) => {
        const watch = await client.watch(`${LIST}?watch=true&resourceVersion=0&timeoutSeconds=1`);
        watch.close();
        return watch.status;
      },
    ],
  ];
  test.each(asks)("%s", async (_, ask) => {
    await using world = await start();
    await follow(world.pod, world);
    expect(await ask(world.pod)).toBe(200);
    world.revoke();
    const seen: number[] = [];
    for (let second = 0; second < 12; second++) {
      seen.push(await ask(world.pod));
      world.clock.forward(1_000);
    }
    expect(seen.lastIndexOf(200)).toBeLessThan(11);
    expect(seen.at(-1)).toBe(403);
  });

  test("also where another caller's watch would feed it", async () => {
    await using world = await start();
    await follow(world.other, world);
    await follow(world.pod, world);
    world.revoke();
    world.clock.forward(11_000);
    expect((await world.pod.get(`${LIST}?resourceVersion=0&labelSelector=x%3Dy`)).status).toBe(403);
    expect((await world.other.get(`${LIST}?resourceVersion=0`)).status).toBe(200);
  });
});

test("a caller that asks all the time costs one review a minute and one answer in ten seconds at most", async () => {
  await using world = await start();
  await follow(world.pod, world);
  const since = world.apiServer.requests.length;
  for (let second = 0; second < 300; second += 2) {
    expect((await world.pod.get(`${LIST}?resourceVersion=0`)).status).toBe(200);
    world.clock.forward(2_000);
  }
  const minutes = 300 / 60;
  expect(world.apiServer.count({ ...REVIEWS, user: "pod" } as never, since)).toBeLessThanOrEqual(minutes + 1);
  expect(
    world.apiServer.count({ verb: "list", resource: "configmaps", user: "pod" } as never, since),
  ).toBeLessThanOrEqual(31);
  expect(world.apiServer.count({ verb: "list", resource: "configmaps" }, since)).toBeLessThanOrEqual(31);
});

test("Secrets are answered by the API server to everybody but the node, each time", async () => {
  await using world = await start();
  await follow(world.pod, world, SECRETS);
  await follow(world.edge.client, world, SECRETS);
  const asked = [`${SECRETS}?resourceVersion=0`, `${SECRETS}/s?resourceVersion=0`];
  for (const path of asked) await world.pod.get(path);
  const since = world.apiServer.requests.length;
  for (let round = 0; round < 3; round++)
    for (const path of asked) expect((await world.pod.get(path)).status).toBe(200);
  expect(world.apiServer.count(({ resource }) => resource === "secrets", since)).toBe(6);
  expect((await world.edge.client.get(asked[0]!)).status).toBe(200);
  expect(world.apiServer.count(({ resource }) => resource === "secrets", since)).toBe(6);
  world.revoke();
  for (const path of asked) expect((await world.pod.get(path)).status).toBe(403);
});

test("a look that is refused is learned from before anything else answers: the link may be lost next", async () => {
  const principal = "token:pod";
  const caller = { principal, isOwn: false, isStranger: false, credential: { id: "pod", authorization: "Bearer pod" } };
  const learned: unknown[] = [];
  const clock = new ShiftedClock();
  const refuse = () => Promise.reject(new UpstreamRefusedError(403, "application/json", "{}", undefined));
  const listed = { resourceVersion: "41", shape: { listKind: "NodeList", apiVersion: "v1", isBare: true } };
  const fresh = new FreshAnswers({
    rights: new FreshRights({ clock, review: async () => undefined }),
    scopes: { find: () => ({ state: "live", listed }) } as never,
    copies: { within: () => undefined },
    source: { list: refuse, watch: refuse },
    lessons: { refused: async (status, { principal: whose }) => void learned.push([status, whose]) },
    link: { isOnline: () => true, patienceMs: 1_000 },
    clock,
  });
  const whole = { group: "", version: "v1", resource: "nodes", namespace: "", fieldSelector: "", labelSelector: "" };
  expect(await fresh.mayWatch(caller as never, { ...whole, principal, representation: "json" })).toBe(false);
  expect(learned).toEqual([[403, principal]]);
});
