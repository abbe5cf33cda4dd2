/**
 * A copy vouches for everything that lies within it: what is cut out of one
 * here is what the API server itself answers to the same narrower request.
 */

import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { startApiServer, type ApiServer } from "../../src/demo/api-server/api-server.ts";
import { Client, eventually, type JsonEvent, type OpenWatch } from "../support/client.ts";
import { configMap, startEdge, type Edge } from "../support/edge.ts";

const PODS = "/api/v1/pods";
const STREAM = "watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
const FORMS = {
  json: "application/json",
  protobuf: "application/vnd.kubernetes.protobuf",
  table: "application/json;as=Table;v=v1;g=meta.k8s.io",
  partial: "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io",
  partialProtobuf: "application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io",
} as const;
type FormName = keyof typeof FORMS;

/** One token, one caller, one wide copy each. */
const TOKENS = Object.fromEntries(Object.keys(FORMS).map((name) => [name, { name, groups: ["system:masters"] }]));
/** What each copy can be made into. */
const MADE_OF: Readonly<Record<FormName, readonly FormName[]>> = {
  json: ["json", "partial"],
  protobuf: ["protobuf", "partialProtobuf"],
  table: ["table", "partial"],
  partial: ["partial"],
  partialProtobuf: ["partialProtobuf"],
};

function pod(name: string, namespace: string, labels: Record<string, string>, phase: string) {
  return {
    kind: "Pod",
    apiVersion: "v1",
    metadata: { name, namespace, labels, annotations: { note: `of ${name} "quoted" {and} more` } },
    spec: { nodeName: "gw-1", restartPolicy: "Always", containers: [{ name: "main", image: "x" }] },
    status: { phase },
  };
}

const labelsArb = fc.dictionary(fc.constantFrom("app", "tier", "x.io/zone"), fc.constantFrom("web", "db", ""), {
  maxKeys: 3,
  noNullPrototype: true,
});
const namespaceArb = fc.constantFrom("shop", "bank", "toys");
const phaseArb = fc.constantFrom("Running", "Pending");
const podsArb = fc.uniqueArray(
  fc.record({ id: fc.nat(40), namespace: namespaceArb, labels: labelsArb, phase: phaseArb }),
  {
    selector: ({ id, namespace }) => `${namespace}/${id}`,
    minLength: 10,
    maxLength: 40,
  },
);
const labelSelectorArb = fc.constantFrom(
  ...["", "app", "!app", "app=web", "app==web", "app!=web", "app in (web,db)", "tier notin (db)", "app=web,tier=db"],
  ...["x.io/zone", "x.io/zone=,app"],
);
const fieldSelectorArb = fc.constantFrom(
  ...["", "status.phase=Running", "status.phase!=Running", "metadata.name=p-7", "metadata.namespace=shop"],
  ...["spec.nodeName=gw-1,status.phase=Pending", "spec.nodeName=other"],
);
const narrowArb = fc.record({
  namespace: fc.option(namespaceArb, { nil: "" }),
  labelSelector: labelSelectorArb,
  fieldSelector: fieldSelectorArb,
});
type Narrow = typeof narrowArb extends fc.Arbitrary<infer T> ? T : never;

function targetOf({ namespace, labelSelector, fieldSelector }: Narrow, query = ""): string {
  const path = namespace === "" ? PODS : `/api/v1/namespaces/${namespace}/pods`;
  const selectors = new URLSearchParams(query);
  if (labelSelector !== "") selectors.set("labelSelector", labelSelector);
  if (fieldSelector !== "") selectors.set("fieldSelector", fieldSelector);
  return selectors.size === 0 ? path : `${path}?${selectors}`;
}

/** A Table's ages are of when it was printed. */
const withoutAges = (body: Buffer) => body.toString("latin1").replaceAll(/"[0-9]+s"/g, '"AGE"');

/** Metadata does not tell a pod's phase. */
const isDecidable = (wide: FormName, { fieldSelector }: Narrow) =>
  wide === "json" || wide === "protobuf" || !/spec\.|status\./.test(fieldSelector);

function directly(apiServer: ApiServer): Client {
  return new Client({ url: apiServer.url, ca: apiServer.cluster.ca, token: "json" });
}

async function worldOf(
  pods: readonly { id: number; namespace: string; labels: Record<string, string>; phase: string }[],
) {
  const objects = pods.map(({ id, namespace, labels, phase }) => pod(`p-${id}`, namespace, labels, phase));
  const apiServer = await startApiServer({ objects, tokens: TOKENS });
  const edge = await startEdge({ apiServer });
  const direct = directly(apiServer);
  return {
    apiServer,
    edge,
    direct,
    async [Symbol.asyncDispose]() {
      direct.close();
      await edge[Symbol.asyncDispose]();
      await apiServer[Symbol.asyncDispose]();
    },
  };
}

describe("while cut, out of a wider copy of the same caller", () => {
  test(
    "lists and GETs are what the API server answers, byte for byte, in every form that can be made",
    async () => {
      await fc.assert(
        fc.asyncProperty(podsArb, fc.array(narrowArb, { minLength: 12, maxLength: 12 }), async (pods, asks) => {
          await using world = await worldOf(pods);
          const { apiServer, edge, direct } = world;
          const names = Object.keys(FORMS) as FormName[];
          for (const name of names)
            expect((await edge.clientWith({ token: name }).get(PODS, { Accept: FORMS[name] })).status).toBe(200);
          const expected: { who: FormName; target: string; Accept: string; body: Buffer; type: string }[] = [];
          for (const who of names)
            for (const form of MADE_OF[who])
              for (const ask of asks) {
                if (!isDecidable(who, ask)) continue;
                const [target, Accept] = [targetOf(ask), FORMS[form]];
                const { body, headers } = await direct.get(target, { Accept });
                expected.push({ who, target, Accept, body, type: headers["content-type"]! });
              }
          const single = pods[0]!;
          for (const who of ["json", "protobuf", "table"] as const) {
            const target = `/api/v1/namespaces/${single.namespace}/pods/p-${single.id}`;
            const { body, headers } = await direct.get(target, { Accept: FORMS[who] });
            expected.push({ who, target, Accept: FORMS[who], body, type: headers["content-type"]! });
          }
          await apiServer.cut();
          for (const { who, target, Accept, body, type } of expected) {
            const client = edge.clientWith({ token: who });
            const reply = await client.get(target, { Accept });
            client.close();
            expect(reply.status).toBe(200);
            expect(reply.headers["content-type"]).toBe(type);
            if (withoutAges(reply.body) !== withoutAges(body))
              throw new Error(`${who} ${Accept} ${target}\n${reply.body.toString()}\n${body.toString()}`);
          }
        }),
        { numRuns: 4, endOnFailure: true },
      );
    },
    { timeout: 120_000 },
  );

  test("a part does not answer for the whole, a Table is not made of objects, nor objects of anything less", async () => {
    await using world = await worldOf([{ id: 1, namespace: "shop", labels: { app: "web" }, phase: "Running" }]);
    const { apiServer, edge } = world;
    const client = edge.clientWith({ token: "json" });
    await client.get("/api/v1/namespaces/shop/pods?labelSelector=app", { Accept: FORMS.json });
    await edge.clientWith({ token: "table" }).get(PODS, { Accept: FORMS.table });
    await apiServer.cut();
    const status = async (who: FormName, target: string, form: FormName) =>
      (await edge.clientWith({ token: who }).get(target, { Accept: FORMS[form] })).status;
    expect(await status("json", "/api/v1/namespaces/shop/pods?labelSelector=app%3Dweb,app", "json")).toBe(200);
    expect(await status("json", PODS, "json")).toBe(503);
    expect(await status("json", "/api/v1/namespaces/shop/pods", "json")).toBe(503);
    expect(await status("json", "/api/v1/namespaces/bank/pods?labelSelector=app", "json")).toBe(503);
    expect(await status("json", "/api/v1/namespaces/shop/pods?labelSelector=app%3Dweb", "json")).toBe(503);
    expect(await status("json", "/api/v1/namespaces/shop/pods?labelSelector=app", "table")).toBe(503);
    expect(await status("json", "/api/v1/namespaces/shop/pods?labelSelector=app", "protobuf")).toBe(503);
    expect(await status("table", "/api/v1/namespaces/shop/pods", "json")).toBe(503);
    expect(await status("table", `${PODS}?fieldSelector=status.phase%3DRunning`, "table")).toBe(503);
    expect(await status("table", `${PODS}?fieldSelector=metadata.name%3Dp-1`, "table")).toBe(200);
    expect(await status("partial", "/api/v1/namespaces/shop/pods", "partial")).toBe(503);
  });

  test("a watch and a streaming list begin with what the API server would have sent, and go on at the return", async () => {
    const labels = { app: "web" };
    const pods = [1, 2, 3].map((id) => ({ id, namespace: "shop", labels: id === 3 ? {} : labels, phase: "Running" }));
    await using world = await worldOf(pods);
    const { apiServer, edge, direct } = world;
    const client = edge.clientWith({ token: "json" });
    const narrow = { namespace: "shop", labelSelector: "app=web", fieldSelector: "" };
    await followWhole(apiServer, client);
    const expected = await direct.watch(targetOf(narrow, STREAM));
    await expected.until((events) => events.at(-1)?.type === "BOOKMARK");
    await apiServer.cut();
    const streaming = await client.watch(targetOf(narrow, STREAM));
    await streaming.until((events) => events.length >= 3);
    expect(initialOf(streaming)).toEqual(initialOf(expected));
    const { metadata } = (await client.get(targetOf(narrow))).json();
    const resumed = await client.watch(targetOf(narrow, `watch=true&resourceVersion=${metadata.resourceVersion}`));
    expect(resumed.status).toBe(200);
    await apiServer.heal();
    apiServer.put(pod("p-3", "shop", labels, "Running"));
    apiServer.put(pod("p-1", "shop", {}, "Running"));
    for (const watch of [streaming, resumed]) {
      await watch.until((events) => events.at(-1)?.type === "DELETED", 15_000);
      expect(watch.events.slice(-2).map(({ type, object }) => `${type} ${object.metadata.name}`)).toEqual([
        "ADDED p-3",
        "DELETED p-1",
      ]);
    }
  });
});

/** A watch of all pods, and Holdfast's own upstream behind it. */
async function followWhole(apiServer: ApiServer, client: Client): Promise<OpenWatch> {
  const whole = await client.watch(`${PODS}?${STREAM}`);
  await whole.until((events) => events.at(-1)?.type === "BOOKMARK");
  apiServer.put(pod("ready", "toys", {}, "Running"));
  await whole.until((events) => events.at(-1)?.object.metadata.name === "ready");
  return whole;
}

/** Its initial events, and where they end; what else a bookmark carries is nothing. */
function initialOf({ events }: OpenWatch): unknown[] {
  return events.map(({ type, object }) =>
    type === "BOOKMARK" ? [type, object.kind, object.metadata.resourceVersion, object.metadata.annotations] : object,
  );
}

interface Pair {
  readonly here: OpenWatch;
  readonly there: OpenWatch;
}

/** What a watch said since its initial events; bookmarks come when they come. */
function changesOf({ events }: OpenWatch): JsonEvent[] {
  const start = events.findIndex(({ object }) => object.metadata.annotations?.["k8s.io/initial-events-end"] === "true");
  return events.slice(start + 1).filter(({ type }) => type !== "BOOKMARK");
}

describe("online, out of a wider copy that the same caller follows", () => {
  const opArb = fc.record({
    id: fc.nat(6),
    namespace: namespaceArb,
    labels: labelsArb,
    phase: phaseArb,
    isRemoved: fc.boolean(),
  });

  async function followBoth(edge: Edge, direct: Client, ask: Narrow, Accept: string): Promise<Pair> {
    const target = targetOf(ask, STREAM);
    const [here, there] = await Promise.all([
      edge.clientWith({ token: "json" }).watch(target, { Accept }),
      direct.watch(target, { Accept }),
    ]);
    for (const watch of [here, there]) await watch.until((events) => events.some(({ type }) => type === "BOOKMARK"));
    return { here, there };
  }

  test(
    "watches say what the API server says, event for event, and cost it nothing",
    async () => {
      await fc.assert(
        fc.asyncProperty(
          podsArb,
          fc.uniqueArray(narrowArb, { minLength: 6, maxLength: 6, selector: targetOf }),
          fc.array(opArb, { minLength: 20, maxLength: 40 }),
          async (pods, asks, ops) => {
            await using world = await worldOf(pods);
            const { apiServer, edge, direct } = world;
            await followWhole(apiServer, edge.clientWith({ token: "json" }));
            const pairs: Pair[] = [];
            for (const ask of asks) pairs.push(await followBoth(edge, direct, ask, FORMS.json));
            // One of a second is a look whether the caller may still watch.
            const lasting = ({ verb, target }: { readonly verb: string; readonly target: string }) =>
              verb === "watch" && !/[?&]timeoutSeconds=1(&|$)/.test(target);
            expect(apiServer.requests.filter(lasting)).toHaveLength(1 + asks.length);
            for (const { id, namespace, labels, phase, isRemoved } of ops)
              if (isRemoved) apiServer.remove("Pod", namespace, `p-${id}`);
              else apiServer.put(pod(`p-${id}`, namespace, labels, phase));
            apiServer.put(pod("p-7", "shop", { app: "web", tier: "db", "x.io/zone": "" }, "Running"));
            for (const { here, there } of pairs) {
              const settled = () => JSON.stringify(changesOf(there));
              await eventually(
                () => JSON.stringify(changesOf(here)),
                (said) => said === settled() && settled().length > 0,
              );
              here.close();
              there.close();
            }
          },
        ),
        { numRuns: 4, endOnFailure: true },
      );
    },
    { timeout: 120_000 },
  );

  test("a list forwarded for a caller who follows all of it opens nothing, and can be watched from", async () => {
    await using world = await worldOf([{ id: 1, namespace: "shop", labels: { app: "web" }, phase: "Running" }]);
    const { apiServer, edge } = world;
    const client = edge.clientWith({ token: "json" });
    const whole = await followWhole(apiServer, client);
    const narrow = { namespace: "shop", labelSelector: "app=web", fieldSelector: "" };
    // Elsewhere in the cluster things go on: the list stands ahead of the copy.
    apiServer.put(configMap("other"));
    const { metadata } = (await client.get(targetOf(narrow))).json();
    const watch = await client.watch(targetOf(narrow, `watch=true&resourceVersion=${metadata.resourceVersion}`));
    apiServer.put(pod("p-1", "shop", {}, "Running"));
    apiServer.put(pod("p-2", "shop", { app: "web" }, "Running"));
    await watch.until((events) => events.length >= 2);
    expect(watch.events.map(({ type, object }) => `${type} ${object.metadata.name}`)).toEqual([
      "DELETED p-1",
      "ADDED p-2",
    ]);
    expect(watch.events[0]!.object.metadata.labels).toEqual({ app: "web" });
    expect(apiServer.watchCount).toBe(1);
    // A resume from a moment that the copy has passed.
    watch.close();
    apiServer.put(pod("p-2", "shop", {}, "Running"));
    await whole.until((events) => events.at(-1)?.object.metadata.name === "p-2" && events.at(-1)?.type === "MODIFIED");
    const resumed = await client.watch(targetOf(narrow, `watch=true&resourceVersion=${metadata.resourceVersion}`));
    await resumed.until((events) => events.length >= 3);
    expect(resumed.events.map(({ type, object }) => `${type} ${object.metadata.name}`)).toEqual([
      "DELETED p-1",
      "ADDED p-2",
      "DELETED p-2",
    ]);
    expect(apiServer.watchCount).toBe(1);
  });
});

describe("a caller with many watches of its own selectors", () => {
  const labelled = (id: number, value = "1") => ({
    kind: "ConfigMap",
    apiVersion: "v1",
    metadata: { name: `c-${id}`, namespace: "shop", labels: { id: String(id) } },
    data: { value },
  });
  const target = (id: number) => `/api/v1/namespaces/shop/configmaps?${STREAM}&labelSelector=id%3D${id}`;

  test(
    "follows the collection once instead, and each watch goes on with exactly its part",
    async () => {
      const ids = Array.from({ length: 60 }, (_, id) => id);
      await using apiServer = await startApiServer({ objects: ids.map((id) => labelled(id)), tokens: TOKENS });
      await using edge = await startEdge({ apiServer });
      const client = edge.clientWith({ token: "json" });
      const watches: OpenWatch[] = [];
      for (const id of ids.slice(0, 40)) watches.push(await client.watch(target(id)));
      await eventually(
        () => apiServer.watchCount,
        (count) => count === 1,
        20_000,
      );
      for (const id of ids.slice(40)) watches.push(await client.watch(target(id)));
      for (const watch of watches) await watch.until((events) => events.some(({ type }) => type === "BOOKMARK"));
      expect(apiServer.watchCount).toBe(1);
      for (const id of ids) apiServer.put(labelled(id, "2"));
      for (const [id, watch] of watches.entries()) {
        await watch.until((events) => events.at(-1)?.type === "MODIFIED");
        expect(
          watch.events.filter(({ type }) => type !== "BOOKMARK").map(({ type, object }) => [type, object.data]),
        ).toEqual([
          ["ADDED", { value: "1" }],
          ["MODIFIED", { value: "2" }],
        ]);
        expect(watch.events[0]!.object.metadata.name).toBe(`c-${id}`);
      }
    },
    { timeout: 60_000 },
  );
});
