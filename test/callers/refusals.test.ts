/**
 * A permission that was taken back before the cut: however its caller came to
 * notice, it reads nothing while cut that it could no longer read.
 */
import { expect, test } from "bun:test";
import { startApiServer } from "../../src/demo/api-server/api-server.ts";
import { eventually, type Client } from "../support/client.ts";
import { configMap, startEdge } from "../support/edge.ts";

const ALL = "/api/v1/configmaps";
const LIST = "/api/v1/namespaces/shop/configmaps";
const OTHER = "/api/v1/namespaces/shop/secrets";
const ONE = `${LIST}?fieldSelector=metadata.name%3Da`;
const LABELLED = `${LIST}?labelSelector=a%3Db`;
const secret = { kind: "Secret", apiVersion: "v1", metadata: { name: "s", namespace: "shop" } };

interface Asked {
  readonly verb: string;
  readonly resource: string;
  readonly namespace: string;
  readonly name: string;
}

/** A caller on a token whose rights the test decides. */
async function start() {
  const apiServer = await startApiServer({
    objects: [configMap("a"), configMap("b"), secret],
    tokens: { pod: { name: "pod", groups: [] } },
  });
  const edge = await startEdge({ apiServer });
  const client = edge.clientWith({ token: "pod" });
  return {
    apiServer,
    edge,
    client,
    allow(rule: (asked: Asked) => boolean) {
      apiServer.authorize = (user, info) => user.name !== "pod" || info.resource === "" || rule(info);
    },
    read: (...paths: string[]) => statuses(client, paths),
    async cut() {
      await apiServer.cut();
      await eventually(
        () => edge.client.get("/healthz"),
        ({ status }) => status === 503,
      );
    },
    async [Symbol.asyncDispose]() {
      await edge[Symbol.asyncDispose]();
      await apiServer[Symbol.asyncDispose]();
    },
  };
}

/** One after the other: what one refusal takes away must be gone before the next is asked. */
async function statuses(client: Client, paths: readonly string[]): Promise<number[]> {
  const seen: number[] = [];
  for (const path of paths) seen.push((await client.get(path)).status);
  return seen;
}

test.each([
  ["a get", `${LIST}/a`],
  ["a list", LIST],
  ["a watch", `${LIST}?watch=true&resourceVersion=0`],
  ["a list of one", ONE],
  ["a list from the copy", `${LIST}?resourceVersion=0`],
])("all rights gone, noticed by %s: no copy answers, whatever its shape", async (_, noticing) => {
  await using world = await start();
  world.allow(() => true);
  const paths = [`${LIST}/a`, ALL, LIST, ONE, LABELLED, OTHER, `${LIST}/b`, `${OTHER}/s`];
  expect(await world.read(...paths)).toEqual(paths.map(() => 200));
  world.allow(() => false);
  // An open watch is not asked about again; the API server ends it sooner or later.
  world.apiServer.endWatches();
  expect(
    await eventually(
      () => world.read(noticing),
      ([status]) => status === 403,
    ),
  ).toEqual([403]);
  await world.cut();
  expect(await world.read(...paths)).toEqual(paths.map(() => 503));
  await world.edge.restart();
  await world.cut();
  expect(await world.read(...paths)).toEqual(paths.map(() => 503));
});

test("a get refused beside a list that is allowed answers no get, over a restart too, until it is allowed", async () => {
  await using world = await start();
  world.allow(({ verb }) => verb !== "get");
  expect(await world.read(LIST, `${LIST}/a`, `${LIST}/a?resourceVersion=0`)).toEqual([200, 403, 403]);
  await world.edge.restart();
  await world.cut();
  expect(await world.read(LIST, `${LIST}/a`, `${LIST}/a?resourceVersion=0`)).toEqual([200, 503, 503]);

  await world.apiServer.heal();
  world.allow(() => true);
  await eventually(
    () => world.read(`${LIST}/a`),
    ([status]) => status === 200,
  );
  await world.cut();
  expect(await world.read(LIST, `${LIST}/a`)).toEqual([200, 200]);
});

test("a list refused beside a get that is allowed takes no get away, and what is still allowed stays", async () => {
  await using world = await start();
  world.allow(({ verb, name }) => verb === "get" || name === "a");
  expect(await world.read(`${LIST}/a`, `${LIST}/b`, ONE, LIST)).toEqual([200, 200, 200, 403]);
  await world.cut();
  expect(await world.read(`${LIST}/a`, `${LIST}/b`, ONE, LIST, LABELLED)).toEqual([200, 200, 200, 503, 503]);
});

test("rights narrowed to one name, noticed by another name's list: the whole is gone, the one name stays", async () => {
  await using world = await start();
  const two = `${LIST}?fieldSelector=metadata.name%3Db`;
  world.allow(() => true);
  expect(await world.read(LIST, ONE, two, OTHER)).toEqual([200, 200, 200, 200]);
  world.allow(({ resource, name }) => resource === "secrets" || name === "a");
  expect(await world.read(two)).toEqual([403]);
  await world.cut();
  expect(await world.read(LIST, two, `${LIST}/b`, ONE, `${LIST}/a`, OTHER)).toEqual([503, 503, 503, 200, 200, 200]);
});

test("a client that is refused again and again what it never had costs the API server nothing more", async () => {
  await using world = await start();
  world.allow(({ resource }) => resource === "configmaps");
  await world.read(LIST, OTHER);
  // The one that is allowed is followed from now on.
  await eventually(() => world.apiServer.watchCount === 1);
  const before = world.apiServer.requests.length;
  await world.read(...Array<string>(5).fill(OTHER), ...Array<string>(5).fill(`${OTHER}/s`));
  const asked = world.apiServer.requests.slice(before).filter(({ user }) => user === "pod");
  expect(asked.map(({ status }) => status)).toEqual(Array(10).fill(403));
});
