/**
 * What is known of our own node, read beside a real store.
 */
import { expect, test } from "bun:test";
import { silentLog } from "../../src/base/log.ts";
import { Scopes } from "../../src/cache/scopes.ts";
import { lastOwnNode } from "../../src/node/own-pods.ts";
import { readList, readWatch, type WireAnswer } from "../../src/uplink/read-answer.ts";
import type { ScopeSource } from "../../src/uplink/scope-source.ts";
import { Bench, PODS } from "../store/support.ts";
import { answer, ModelLink, Received, settle } from "../support/model.ts";

const NODES = { ...PODS, resource: "nodes", fieldSelector: "metadata.name=edge-1" };

const nodeText = (version: number) =>
  JSON.stringify({
    kind: "Node",
    apiVersion: "v1",
    metadata: { name: "edge-1", uid: "u", resourceVersion: String(version) },
    status: {
      conditions: [
        {
          type: "Ready",
          status: "True",
          lastHeartbeatTime: `2026-01-01T10:${String(version).padStart(2, "0")}:00Z`,
          lastTransitionTime: "2026-01-01T09:00:00Z",
        },
      ],
    },
  });

test("looking at our own node, as the witness does all the time, writes no heartbeat that is held back", async () => {
  using bench = new Bench();
  const store = bench.open();
  let say: (text: string) => void = () => {};
  const source: ScopeSource = {
    hasCredential: () => true,
    list: async () =>
      readList(
        answer(200, [
          `{"kind":"NodeList","apiVersion":"v1","metadata":{"resourceVersion":"1"},"items":[${nodeText(1)}]}`,
        ]),
        NODES,
      ),
    watch: async (_identity, { shape }) =>
      readWatch(
        streaming((push) => (say = push)),
        NODES,
        shape,
      ),
  };
  const scopes = new Scopes(
    {
      store,
      source,
      link: new ModelLink(),
      clock: bench.clock,
      log: silentLog,
      random: () => 0.5,
      countList: () => {},
      limits: {
        scopeMaxItems: 10,
        scopeMaxBytes: 1e6,
        ringMaxEvents: 10,
        ringMaxBytes: 1e6,
        lingerMs: 300_000,
        bookmarkIntervalMs: 45_000,
      },
    },
    { retentionMs: 1e9, maxScopes: 10 },
  );
  const received = new Received();
  const scope = scopes.open(NODES)!;
  await scope.watch(
    { resourceVersion: "", sendInitialEvents: true, allowBookmarks: true, timeoutMs: 600_000 },
    () => received,
  );
  await settle();
  bench.clock.pass(5_000);
  const { commits } = store.status();
  say(`{"type":"MODIFIED","object":${nodeText(2)}}\n`);
  await settle();
  bench.clock.pass(5_000);

  const seen = lastOwnNode(scopes, { principal: NODES.principal, name: "edge-1" })!;

  expect(Buffer.from(seen).toString()).toContain("2026-01-01T10:02:00Z");
  expect(store.status().commits).toBe(commits);
  expect(lastOwnNode(scopes, { principal: NODES.principal, name: "edge-2" })).toBeUndefined();
  scopes.close();
});

/** An answer that goes on as long as the test says more. */
function streaming(begun: (push: (text: string) => void) => void): WireAnswer {
  const body = new ReadableStream<Uint8Array>({
    start: (controller) => begun((text) => controller.enqueue(Buffer.from(text))),
  });
  return { ...answer(200, []), chunks: body as unknown as AsyncIterable<Uint8Array> };
}
