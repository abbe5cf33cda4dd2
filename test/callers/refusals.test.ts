/**
 * A permission that was taken back before the cut: however its caller came to
 * notice, it reads nothing while cut that it could no longer read. A refusal
 * that was none, of an API server that had only just started, costs nothing.
 */
import { describe, expect, test } from "bun:test";
import { startApiServer } from "../../src/demo/api-server/api-server.ts";
import { eventually, type Client } from "../support/client.ts";
import { configMap, startEdge } from "../support/edge.ts";
import { ShiftedClock } from "../support/shifted-clock.ts";

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
  const clock = new ShiftedClock();
  const apiServer = await startApiServer({
    objects: [configMap("a"), configMap("b"), secret],
    tokens: { pod: { name: "pod", groups: [] } },
  });
  const edge = await startEdge({ apiServer, clock });
  const client = edge.clientWith({ token: "pod" });
  const metric = async (name: string) => {
    const text = await (await fetch(`${edge.healthUrl}/metrics`)).text();
    return Number(new RegExp(`^${name} (\\d+)$`, "m").exec(text)?.[1]);
  };
  return {
    apiServer,
    clock,
    edge,
    client,
    allow(rule: (asked: Asked) => boolean) {
      apiServer.authorize = (user, info) => user.name !== "pod" || info.resource === "" || rule(info);
    },
    read: (...paths: string[]) => statuses(client, paths),
    /** Copies on disk, and recorded answers. */
    kept: () => metric("holdfast_cache_objects"),
    metric,
    async heal() {
      await apiServer.heal();
      await eventually(
        () => edge.client.get("/healthz"),
        ({ status }) => status === 200,
      );
    },
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

const EVERYTHING = [`${LIST}/a`, ALL, LIST, ONE, LABELLED, OTHER, `${LIST}/b`, `${OTHER}/s`, "/apis"];
const all = (status: number) => EVERYTHING.map(() => status);

describe("an API server that has only just started", () => {
  test.each([
    ["403 for everything", { code: 403, reason: "Forbidden", message: "not synced" }],
    ["401 for everything", { code: 401 }],
    ["404 for everything", { code: 404, reason: "NotFound", message: "not there yet" }],
  ])(
    "%s: while it lasts nothing is read, and afterwards nothing is lost",
    async (_, status) => {
      await using world = await start();
      world.allow(() => true);
      expect(await world.read(...EVERYTHING)).toEqual(all(200));
      const isPods = ({ path }: { readonly path: string }) => path.startsWith("/api/") || path === "/apis";
      world.apiServer.nextStatus(status, isPods, Number.POSITIVE_INFINITY);
      world.apiServer.endWatches();
      await eventually(
        () => world.read(...EVERYTHING),
        (seen) => seen.every((code) => code === status.code),
      );
      // A cut in the very moment, and a restart in it: what was refused is not read.
      await world.cut();
      expect(await world.read(LIST, `${LIST}/a`, OTHER)).not.toContain(200);
      await world.edge.restart();
      await world.cut();
      expect(await world.read(LIST, `${LIST}/a`, OTHER)).not.toContain(200);
      // It is ready now.
      await world.heal();
      await eventually(
        () => world.read(LIST),
        ([code]) => code === 200,
      );
      // It is looked at again, and all is as it was.
      await eventually(
        () => {
          world.clock.forward(61_000);
          return world.metric("holdfast_refusals_standing");
        },
        (standing) => standing === 0,
        30_000,
      );
      await world.cut();
      expect(await world.read(...EVERYTHING)).toEqual(all(200));
    },
    90_000,
  );
});

test.each([
  ["a list", LIST],
  ["a watch", `${LIST}?watch=true&resourceVersion=0`],
  ["a get", `${LIST}/a`],
])(
  "a right taken back while the credential was refused too, noticed by %s, is no right when the credential counts again",
  async (_, noticing) => {
    await using world = await start();
    world.allow(() => true);
    expect(await world.read(LIST, `${LIST}/a`, OTHER)).toEqual([200, 200, 200]);
    const isRefused = ({ path }: { readonly path: string }) => path.startsWith("/api/");
    world.apiServer.nextStatus({ code: 401 }, isRefused, Number.POSITIVE_INFINITY);
    world.apiServer.endWatches();
    await eventually(
      () => world.read(LIST, OTHER),
      (seen) => seen.every((code) => code === 401),
    );
    world.allow(({ resource }) => resource !== "configmaps");
    await world.heal();
    expect(await world.read(noticing)).toEqual([403]);
    expect(await world.read(OTHER)).toEqual([200]);
    await world.cut();
    expect(await world.read(noticing, OTHER)).toEqual([503, 200]);
  },
);

test.each([["too", [ONE, LIST]] as const, ["not asked about", [ONE]] as const])(
  "a whole that is refused with its part (%s) is not given back by the end of the part's refusal",
  async (_, asked) => {
    await using world = await start();
    world.allow(() => true);
    expect(await world.read(LIST, ONE)).toEqual([200, 200]);
    world.allow(({ resource }) => resource !== "configmaps");
    // Nobody follows the whole, which would hear of it for itself.
    await world.edge.restart();
    await world.heal();
    expect(await world.read(...asked)).toEqual(asked.map(() => 403));
    const standing = await world.metric("holdfast_refusals_standing");
    world.allow(({ name, resource }) => resource !== "configmaps" || name === "a");
    await eventually(async () => {
      world.clock.forward(61_000);
      return (await world.metric("holdfast_refusals_standing")) === standing - 1;
    });
    expect(await world.read(ONE)).toEqual([200]);
    await world.cut();
    expect(await world.read(LIST, ONE)).toEqual([503, 200]);
  },
);

describe("a refusal that lasts", () => {
  test("takes away all that it withheld, once the API server has been ready for a while; over a restart too", async () => {
    await using world = await start();
    world.allow(() => true);
    expect(await world.read(...EVERYTHING)).toEqual(all(200));
    const before = await world.kept();
    world.allow(() => false);
    world.apiServer.endWatches();
    await eventually(
      () => world.read(LIST, OTHER),
      (seen) => seen.every((code) => code === 403),
    );
    expect(await world.kept()).toBe(before);
    await world.edge.restart();
    expect(await world.read(LIST, OTHER)).toEqual([403, 403]);
    expect(await world.kept()).toBe(before);
    await eventually(
      async () => {
        world.clock.forward(61_000);
        return world.kept();
      },
      (kept) => kept < before,
      30_000,
    );
    // Given back now, nothing of before is there: it must be read again.
    world.apiServer.authorize = () => true;
    await world.cut();
    expect(await world.read(...EVERYTHING.filter((path) => path !== "/apis"))).not.toContain(200);
  }, 60_000);

  test("that stands for a minute of readiness is not believed yet", async () => {
    await using world = await start();
    world.allow(() => true);
    expect(await world.read(LIST)).toEqual([200]);
    const before = await world.kept();
    world.allow(() => false);
    expect(await world.read(LIST)).toEqual([403]);
    for (let minute = 0; minute < 3; minute++) {
      const looks = world.apiServer.count({ path: "/readyz" });
      world.clock.forward(61_000);
      await eventually(() => world.apiServer.count({ path: "/readyz" }) > looks);
    }
    expect(await world.kept()).toBe(before);
  });
});
