/**
 * Ports of nodes: kept, never given twice, by however many replicas.
 */
import { expect, test } from "bun:test";
import { ApiError } from "../../src/cluster/api.ts";
import { PortBook } from "../../src/gateway/port-book.ts";

/** One ConfigMap, as an API server keeps it. */
function cluster() {
  let object:
    | { metadata: { resourceVersion: string; annotations: Record<string, string> }; data: Record<string, string> }
    | undefined;
  const asked: string[] = [];
  const conflict = () => new ApiError("Cannot PATCH: 409 Conflict", 409, "Conflict");
  const book = (first = 20_000, last = 20_099) =>
    new PortBook({
      first,
      last,
      async ask(method, _, body, accept) {
        asked.push(method);
        await Bun.sleep(0);
        if (method === "GET" && object === undefined) throw new ApiError("Cannot GET: 404", 404, "NotFound");
        if (method === "POST") {
          if (object !== undefined) throw conflict();
          object = { metadata: { resourceVersion: "1", annotations: {} }, data: {} };
        }
        if (method === "PATCH") {
          const { metadata, data = {} } = body as { metadata: Record<string, any>; data?: Record<string, string> };
          if (metadata["resourceVersion"] !== object!.metadata.resourceVersion) throw conflict();
          Object.assign(object!.metadata.annotations, metadata["annotations"]);
          Object.assign(object!.data, data);
          object!.metadata.resourceVersion = `${Number(object!.metadata.resourceVersion) + 1}`;
        }
        // A patch is answered with metadata where that was asked for: nobody may count on the rest.
        return structuredClone(accept === undefined ? object : { metadata: object!.metadata });
      },
    });
  return { book, asked, object: () => object! };
}

test("three replicas that ask at once give forty nodes forty ports, the same node the same one", async () => {
  const { book, object } = cluster();
  const replicas = [book(), book(), book()];
  const nodes = Array.from({ length: 40 }, (_, i) => `edge-${i}`);
  const given = await Promise.all(nodes.flatMap((node) => replicas.map(async (replica) => await replica.give(node))));
  nodes.forEach((_, i) => expect(new Set(given.slice(3 * i, 3 * i + 3)).size).toBe(1));
  expect(new Set(given).size).toBe(40);
  expect(new Set(Object.values(object().data)).size).toBe(40);
});

test("a replica alone reads the book once, and writes one patch for each new node", async () => {
  const { book, asked } = cluster();
  const replica = book();
  for (let round = 0; round < 2; round++) for (let i = 0; i < 20; i++) await replica.give(`edge-${i}`);
  expect(asked).toEqual(["GET", "POST", "GET", ...Array.from({ length: 20 }, () => "PATCH")]);
});

test("when the range is used up it says so, by the flag that widens it", async () => {
  const { book } = cluster();
  const replica = book(20_000, 20_001);
  await replica.give("a");
  await replica.give("b");
  await expect(replica.give("c")).rejects.toThrow(/20000 to 20001 are taken; widen the range with --ports/);
  expect(await replica.give("a")).toBeGreaterThanOrEqual(20_000);
});

test("addresses are told once each, beside the ports, and bounded", async () => {
  const { book, object } = cluster();
  const replicas = [book(), book()];
  for (let i = 0; i < 20; i++) await replicas[i % 2]!.publish(`10.0.0.${i}`);
  await replicas[0]!.give("edge-1");
  await replicas[1]!.publish("10.0.0.19");
  const said = object().metadata.annotations["holdfast.dev/tunnel-addresses"]!.split(",");
  expect([said.length, said[0], said.at(-1)]).toEqual([16, "10.0.0.4", "10.0.0.19"]);
});
