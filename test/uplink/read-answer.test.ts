import { describe, expect, test } from "bun:test";
import { gzipSync } from "node:zlib";
import type { Item, WatchFrame } from "../../src/kube/codec.ts";
import { readList, readWatch, type WireAnswer } from "../../src/uplink/read-answer.ts";
import { unfolded } from "../../src/uplink/unfold.ts";

const PODS = { group: "", version: "v1", resource: "pods" };
const SHAPE = { listKind: "PodList", apiVersion: "v1", isBare: true };
const POD = '{"metadata":{"name":"web-0","namespace":"shop","uid":"u","resourceVersion":"41"}}';
const LIST = `{"kind":"PodList","apiVersion":"v1","metadata":{"resourceVersion":"42"},"items":[${POD}]}\n`;
const STATUS = '{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","reason":"Forbidden","code":403}\n';

function wire(status: number, headers: Record<string, string>, parts: readonly (string | Uint8Array)[]): WireAnswer {
  async function* chunks(): AsyncGenerator<Uint8Array> {
    for (const part of parts) yield Buffer.from(part as string);
  }
  return { status, header: (name) => headers[name], chunks: chunks() };
}

const json = { "content-type": "application/json" };

async function all<T>(batches: AsyncIterable<readonly T[]>): Promise<T[]> {
  const found: T[] = [];
  for await (const batch of batches) found.push(...batch);
  return found;
}

describe("a list", () => {
  test("comes as items, and as a whole, however its bytes come", async () => {
    for (const parts of [[LIST], [...LIST], [LIST.slice(0, 9), "", LIST.slice(9)]]) {
      const page = await readList(wire(200, json, parts), PODS);
      const items: Item[] = await all(page.batches);
      expect(items.map(({ bytes }) => Buffer.from(bytes).toString())).toEqual([POD]);
      expect(page.head().resourceVersion).toBe("42");
    }
  });

  test.each([
    ["403 with a Status", 403, json, STATUS, "UPSTREAM_REFUSED"],
    ["404 as plain text", 404, { "content-type": "text/plain" }, "404 page not found\n", "FOREIGN_ANSWER"],
    [
      "404 as plain text, signed",
      404,
      { "content-type": "text/plain", "audit-id": "a" },
      "404 page not found",
      "UNSAID",
    ],
    ["403 as HTML", 403, { "content-type": "text/html" }, "<html>no</html>", "FOREIGN_ANSWER"],
    ["401 as JSON of another's", 401, json, '{"error":"log in"}', "FOREIGN_ANSWER"],
    ["200 with a page", 200, { "content-type": "text/html" }, "<html>welcome</html>", "FOREIGN_ANSWER"],
    ["200 with a page that calls itself JSON", 200, json, "<html>welcome</html>", "FOREIGN_ANSWER"],
    ["200 with no body", 200, json, "", "FOREIGN_ANSWER"],
    ["200 with another kind", 200, json, '{"kind":"Pod","apiVersion":"v1","metadata":{"name":"a"}}', "FOREIGN_ANSWER"],
    ["302", 302, { location: "/login" }, "", "FOREIGN_ANSWER"],
    ["200, signed, that came short", 200, { ...json, "audit-id": "a" }, LIST.slice(0, 20), "UNREACHABLE"],
  ] as const)("%s is told for what it is", async (_name, status, headers, body, code) => {
    await expect(readList(wire(status, headers, [body]), PODS)).rejects.toMatchObject({ code });
    await expect(readList(wire(status, headers, [...body]), PODS)).rejects.toMatchObject({ code });
  });

  test("an answer that trickles in is not judged at every byte", async () => {
    const parts = Array.from(`{"metadata":{"resourceVersion":"42"},"pad":"${"x".repeat(60_000)}"}`);
    const startedMs = performance.now();
    await expect(readList(wire(200, json, parts), PODS)).rejects.toMatchObject({ code: "FOREIGN_ANSWER" });
    expect(performance.now() - startedMs).toBeLessThan(5_000);
  });
});

describe("a watch", () => {
  test("comes as frames, and an arrival without one is a sign of life", async () => {
    const event = `{"type":"ADDED","object":{"kind":"Pod","apiVersion":"v1",${POD.slice(1)}}\n`;
    const stream = await readWatch(wire(200, json, [event.slice(0, 20), event.slice(20)]), PODS, SHAPE);
    const batches: (readonly WatchFrame[])[] = [];
    for await (const batch of stream.batches) batches.push(batch);
    expect(batches.map((batch) => batch.map(({ type }) => type))).toEqual([[], ["ADDED"]]);
    const [frame] = batches[1]!;
    expect(frame?.type === "ADDED" && Buffer.from(frame.item.bytes).toString()).toBe(POD);
  });

  test("a login page is no watch", async () => {
    const page = wire(200, { "content-type": "text/html" }, ["<html>welcome</html>"]);
    await expect(readWatch(page, PODS, SHAPE)).rejects.toMatchObject({ code: "FOREIGN_ANSWER" });
  });
});

describe("what was compressed", () => {
  async function* pieces(bytes: Uint8Array, size: number): AsyncGenerator<Uint8Array> {
    for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size);
  }

  test("may be several members, cut anywhere", async () => {
    const members = Buffer.concat([gzipSync(LIST.slice(0, 50)), gzipSync(""), gzipSync(LIST.slice(50))]);
    for (const size of [1, 7, members.length]) {
      const parts: Uint8Array[] = [];
      for await (const chunk of unfolded(pieces(members, size), 1_000)) parts.push(chunk);
      expect(Buffer.concat(parts).toString()).toBe(LIST);
    }
  });

  test("each member comes through before the next one is there", async () => {
    const next = Promise.withResolvers<void>();
    async function* members(): AsyncGenerator<Uint8Array> {
      yield gzipSync("one ");
      await next.promise;
      yield gzipSync("two");
    }
    const reader = unfolded(members(), 0)[Symbol.asyncIterator]();
    expect(Buffer.from((await reader.next()).value!).toString()).toBe("one ");
    next.resolve();
    expect(Buffer.from((await reader.next()).value!).toString()).toBe("two");
    expect((await reader.next()).done).toBe(true);
  });

  test("ends at its bound, and holds no more than a piece of it", async () => {
    const bomb = gzipSync(Buffer.alloc(64 * 2 ** 20, 32));
    let size = 0;
    let largest = 0;
    const reading = (async () => {
      for await (const chunk of unfolded(pieces(bomb, 16_384), 2 ** 20)) {
        size += chunk.length;
        largest = Math.max(largest, chunk.length);
      }
    })();
    await expect(reading).rejects.toMatchObject({ code: "MALFORMED" });
    expect(size).toBeLessThanOrEqual(2 ** 20);
    expect(largest).toBeLessThanOrEqual(2 ** 17);
  });

  test("that ends early, or is none, is not taken for whole", async () => {
    const half = gzipSync(LIST).subarray(0, 40);
    for (const bytes of [half, Buffer.from(LIST)])
      await expect(
        (async () => {
          for await (const _ of unfolded(pieces(bytes, 16), 1_000));
        })(),
      ).rejects.toThrow();
  });
});
