/**
 * Answers with a node in them, in pieces as a network brings them: whatever the
 * split, what comes out is the same, and nothing else in them moves.
 */

import { expect, test } from "bun:test";
import { gzipSync } from "node:zlib";
import fc from "fast-check";
import { placeAt } from "../../src/kube/place.ts";
import { readAnnotation, showing, type SeenNode } from "../../src/kube/placed-node.ts";
import { editedJson } from "../../src/kube/placed-json.ts";
import { editedProtobuf } from "../../src/kube/placed-protobuf.ts";
import { envelope, message, openEnvelope, text, varint } from "../../src/kube/protobuf-wire.ts";
import { PROTOBUF_TYPE } from "../../src/kube/representation.ts";
import { restoredAnswer, type AskedShape, type Restorer } from "../../src/uplink/placed-answer.ts";
import type { UpstreamAnswer } from "../../src/uplink/upstream-answer.ts";

const NAME = "edge-1";
const place = placeAt(["10.96.7.7"], 10250);
const show = (node: SeenNode) => showing(node.now, place);

function restorer(): Restorer & { readonly failures: string[] } {
  const failures: string[] = [];
  return {
    name: NAME,
    failures,
    shownOf: ({ annotation }) => (annotation === undefined ? undefined : readAnnotation(annotation)),
    heardOf() {},
    lastShown: () => undefined,
    failed: (why) => void failures.push(why),
  };
}

const node = (name: string, pad = 0) => ({
  kind: "Node",
  apiVersion: "v1",
  metadata: { name, uid: name, annotations: { note: `a "quoted" \\ [{ ${"x".repeat(pad)}` } },
  status: {
    addresses: [{ type: "InternalIP", address: "192.168.1.5" }],
    daemonEndpoints: { kubeletEndpoint: { Port: 10251 } },
  },
});
const jsonBytes = (value: unknown) => Buffer.from(JSON.stringify(value));
const shownJson = JSON.parse(Buffer.from(editedJson(jsonBytes(node(NAME)), NAME, show)!).toString());

const protobuf = (name: string, pad = 0) =>
  Buffer.concat([
    message(1, [text(1, name), text(7, "x".repeat(pad))]),
    message(3, [
      message(5, [text(1, "InternalIP"), text(2, "192.168.1.5")]),
      message(6, [message(1, [varint(1, 10251)])]),
    ]),
  ]);
const inNode = (bare: Uint8Array) => Buffer.from(envelope("v1", "Node", [bare]));
const shownProtobuf = (() => {
  const whole = editedProtobuf(inNode(protobuf(NAME)), NAME, show)!;
  const { start, end } = openEnvelope(whole, 0, whole.length);
  return whole.subarray(start, end);
})();

const jsonList = (own: unknown, pad: number) =>
  jsonBytes({
    kind: "NodeList",
    apiVersion: "v1",
    metadata: { resourceVersion: "9", odd: [[{ name: NAME }]] },
    items: [node("edge-10", pad), own, node("edge-2", pad)],
  });
const protobufList = (own: Uint8Array, pad: number) =>
  Buffer.from(
    envelope("v1", "NodeList", [
      message(1, [text(2, "9")]),
      message(2, [protobuf("edge-10", pad)]),
      message(2, [own]),
      message(2, [protobuf("edge-2")]),
    ]),
  );
const jsonEvents = (own: unknown) =>
  Buffer.concat(
    [node("edge-10"), own, { kind: "Node", metadata: { resourceVersion: "12" } }].map((object, at) =>
      Buffer.from(`${JSON.stringify({ type: at === 2 ? "BOOKMARK" : "ADDED", object })}\n`),
    ),
  );
const frame = (own: Uint8Array) => {
  const event = Buffer.concat([text(1, "ADDED"), message(2, [message(1, [inNode(own)])])]);
  const length = Buffer.alloc(4);
  length.writeUInt32BE(event.length);
  return Buffer.concat([length, event]);
};
const protobufEvents = (own: Uint8Array) =>
  Buffer.concat([frame(protobuf("edge-10")), frame(own), frame(protobuf("edge-2"))]);

const JSON_TYPE = "application/json";
const cases: [string, string, AskedShape, Buffer, Buffer][] = [
  ["an object", JSON_TYPE, "object", jsonBytes(shownJson), jsonBytes(node(NAME))],
  ["an object in protobuf", PROTOBUF_TYPE, "object", inNode(shownProtobuf), inNode(protobuf(NAME))],
  ["a list", JSON_TYPE, "list", jsonList(shownJson, 10), jsonList(node(NAME), 10)],
  ["a long list", JSON_TYPE, "list", jsonList(shownJson, 90_000), jsonList(node(NAME), 90_000)],
  ["a list in protobuf", PROTOBUF_TYPE, "list", protobufList(shownProtobuf, 9), protobufList(protobuf(NAME), 9)],
  [
    "a long list in protobuf",
    PROTOBUF_TYPE,
    "list",
    protobufList(shownProtobuf, 90_000),
    protobufList(protobuf(NAME), 90_000),
  ],
  ["a watch", JSON_TYPE, "watch", jsonEvents(shownJson), jsonEvents(node(NAME))],
  [
    "a watch in protobuf",
    `${PROTOBUF_TYPE};stream=watch`,
    "watch",
    protobufEvents(shownProtobuf),
    protobufEvents(protobuf(NAME)),
  ],
];

/** An answer whose body comes in these pieces. */
function answerOf(type: string, pieces: readonly Uint8Array[], more: Record<string, string> = {}): UpstreamAnswer {
  const response = new Response(
    new ReadableStream<Uint8Array<ArrayBuffer>>({
      start(controller) {
        for (const piece of pieces) controller.enqueue(new Uint8Array(piece));
        controller.close();
      },
    }),
    { headers: { "Content-Type": type, ...more } },
  );
  return Object.assign(response, { word: "answer" }) as unknown as UpstreamAnswer;
}

function split(bytes: Uint8Array, cuts: readonly number[]): Uint8Array[] {
  const at = [0, ...cuts.map((cut) => cut % (bytes.length + 1)).sort((a, b) => a - b), bytes.length];
  return at.slice(1).map((end, index) => bytes.subarray(at[index]!, end));
}

test.each(cases)("%s, however it is split and compressed or not", async (_name, type, shape, shown, wanted) => {
  await fc.assert(
    fc.asyncProperty(fc.array(fc.nat(shown.length), { maxLength: 6 }), fc.boolean(), async (cuts, isZipped) => {
      const sent = isZipped ? gzipSync(shown) : shown;
      const lens = restorer();
      const answer = answerOf(type, split(sent, cuts), isZipped ? { "Content-Encoding": "gzip" } : {});
      const after = await restoredAnswer(answer, shape, lens);
      expect(Buffer.from(await after.bytes()).equals(wanted)).toBe(true);
      expect(after.headers.get("content-encoding")).toBeNull();
      expect(lens.failures).toEqual([]);
    }),
    { numRuns: 30 },
  );
});

test.each(cases.filter(([, , shape, shown]) => shape !== "watch" && shown.length < 60_000))(
  "%s that is short and whole has its new length, and keeps its bytes where nothing is to be restored",
  async (_name, type, shape, shown, wanted) => {
    const sent = { "Content-Length": String(shown.length) };
    const after = await restoredAnswer(answerOf(type, [shown], sent), shape, restorer());
    expect(after.headers.get("content-length")).toBe(String(wanted.length));
    expect(Buffer.from(await after.bytes()).equals(wanted)).toBe(true);
    const whole = answerOf(type, [wanted], { "Content-Length": String(wanted.length) });
    const bytes = await whole.bytes();
    const again = {
      ...whole,
      status: 200,
      headers: whole.headers,
      word: "answer",
      bytes: async () => bytes,
    } as UpstreamAnswer;
    expect(await restoredAnswer(again, shape, restorer())).toBe(again);
  },
);

test.each([
  ["an object larger than 16 MiB", JSON_TYPE, "object", jsonBytes(node(NAME, 17 * 2 ** 20))],
  ["a list in protobuf larger than 16 MiB", PROTOBUF_TYPE, "list", protobufList(shownProtobuf, 17 * 2 ** 20)],
  ["a watch in protobuf whose event is", PROTOBUF_TYPE, "watch", frame(protobuf(NAME, 17 * 2 ** 20))],
] as const)("%s goes on as it is, and is told of", async (_name, type, shape, bytes) => {
  const lens = restorer();
  const after = await restoredAnswer(answerOf(type, split(bytes, [5, 2 ** 20, bytes.length - 9])), shape, lens);
  expect(Buffer.from(await after.bytes()).equals(bytes)).toBe(true);
  expect(lens.failures.length).toBe(1);
});

test.each([
  ["of another type", "application/yaml", {}],
  ["in another encoding", JSON_TYPE, { "Content-Encoding": "br" }],
])("an answer %s goes on as it is, and is told of", async (_name, type, headers) => {
  const lens = restorer();
  const answer = answerOf(type, [jsonBytes(shownJson)], headers);
  expect(await restoredAnswer(answer, "object", lens)).toBe(answer);
  expect(lens.failures.length).toBe(1);
});

test("a refusal is nobody's node", async () => {
  const lens = restorer();
  const answer = Object.assign(Response.json({ kind: "Status" }, { status: 403 }), { word: "refusal" });
  const upstream = answer as unknown as UpstreamAnswer;
  expect(await restoredAnswer(upstream, "object", lens)).toBe(upstream);
});

test("whoever wants no more of a watch ends it at its source", async () => {
  const gone = Promise.withResolvers<void>();
  const body = new ReadableStream<Uint8Array<ArrayBuffer>>({ cancel: () => gone.resolve() });
  const answer = Object.assign(new Response(body, { headers: { "Content-Type": JSON_TYPE } }), { word: "answer" });
  const after = await restoredAnswer(answer as unknown as UpstreamAnswer, "watch", restorer());
  const reader = after.body!.getReader();
  const waiting = reader.read();
  await reader.cancel();
  await gone.promise;
  expect((await waiting).done).toBe(true);
});
