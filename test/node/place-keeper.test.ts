/**
 * The node is shown where its place is: over a real way up to an API server,
 * with a place that comes, moves and goes.
 */

import { expect, test } from "bun:test";
import type { Finding } from "../../src/base/conditions.ts";
import { systemClock } from "../../src/base/clock.ts";
import { silentLog } from "../../src/base/log.ts";
import { startApiServer } from "../../src/demo/api-server/api-server.ts";
import { placeAt, type Place, type PlaceSource } from "../../src/kube/place.ts";
import { PLACE_ANNOTATION } from "../../src/kube/placed-node.ts";
import { askNode } from "../../src/node/own-node.ts";
import { PlaceKeeper } from "../../src/node/place-keeper.ts";
import { NodePlace } from "../../src/uplink/node-place.ts";
import { Upstream } from "../../src/uplink/upstream.ts";
import { eventually } from "../support/client.ts";
import { ManualClock } from "../support/model.ts";

const NAME = "edge-1";
const NODE = `/api/v1/nodes/${NAME}`;
const TRUE = [{ type: "InternalIP", address: "192.168.1.5" }];

class Source implements PlaceSource {
  #place: Place | undefined;
  #listeners = new Set<() => void>();

  current(): Place | undefined {
    return this.#place;
  }

  onChange(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  move(place: Place | undefined): void {
    this.#place = place;
    for (const listener of this.#listeners) listener();
  }
}

const BARE = {
  kind: "Node",
  apiVersion: "v1",
  metadata: { name: NAME },
  status: { addresses: TRUE, daemonEndpoints: { kubeletEndpoint: { Port: 10250 } } },
};

/** @param node as the API server has it. */
async function world(node: any = BARE) {
  const apiServer = await startApiServer({ objects: [node] });
  const pair = apiServer.cluster.clientCertificate(`system:node:${NAME}`, ["system:nodes"]);
  const credential = { id: "own", certificate: { certPem: pair.cert, keyPem: pair.key } };
  const nodePlace = new NodePlace(
    () => NAME,
    () => {},
  );
  const upstream = new Upstream({
    servers: [apiServer.url],
    caPem: () => apiServer.cluster.ca,
    proxyFor: () => undefined,
    clock: systemClock,
    onAnswer() {},
    onFailure() {},
    onWaiting() {},
    place: nodePlace,
  });
  const stop = new AbortController();
  const ask = async (method: string, target: string, body?: string, contentType = "application/json") => {
    const answer = await upstream.request({
      method,
      target,
      headers: [
        ["Accept", "application/json"],
        ["Content-Type", contentType],
      ],
      ...(body === undefined ? {} : { body: new Uint8Array(Buffer.from(body)) }),
      credential,
      signal: stop.signal,
    });
    return { status: answer.status, object: JSON.parse(await answer.text()) };
  };
  const clock = new ManualClock();
  const source = new Source();
  let isOnline = true;
  const linkListeners = new Set<(isOnline: boolean) => void>();
  const findings: (Finding | undefined)[] = [];
  const writes: number[] = [];
  /** In the place of the API server's answer: a write that somebody undoes. */
  let undo: (() => void) | undefined;
  const keeper = new PlaceKeeper({
    place: nodePlace,
    link: {
      isOnline: () => isOnline,
      onChange(listener) {
        linkListeners.add(listener);
        return () => linkListeners.delete(listener);
      },
    },
    clock,
    log: silentLog,
    mayWrite: async () => {},
    read: async () => void (await ask("GET", NODE).catch(() => {})),
    async write({ target, body, contentType }) {
      writes.push(clock.monotonicMs());
      const { status } = await ask("PATCH", target, body, contentType).catch(() => ({ status: undefined }));
      undo?.();
      if (undo !== undefined) await ask("GET", NODE).catch(() => {});
      return status;
    },
    onContested: (finding) => void findings.push(finding),
  });
  nodePlace.follow(source);
  keeper.start(stop.signal);
  const held = () => ({ ...(apiServer.object("Node", "", NAME) as any), kind: "Node", apiVersion: "v1" });
  return {
    apiServer,
    clock,
    source,
    writes,
    findings,
    held,
    ask,
    askMetadata: () => askNode(upstream, credential, NAME, stop.signal),
    read: async () => (await ask("GET", NODE)).object,
    setOnline(wanted: boolean) {
      isOnline = wanted;
      for (const listener of linkListeners) listener(wanted);
    },
    undoEachBy(what: () => void) {
      undo = what;
    },
    /** Time goes on until it has written so often. */
    written: (count: number, stepMs = 500) =>
      eventually(async () => {
        await clock.pass(stepMs);
        return writes.length >= count;
      }),
    first: () => held().status.addresses[0].address as string,
    async [Symbol.asyncDispose]() {
      stop.abort();
      keeper.stop();
      await apiServer[Symbol.asyncDispose]();
    },
  };
}

test("a place that comes, moves and goes is one write each, and reads stay as they were", async () => {
  await using w = await world();
  expect((await w.read()).status.addresses).toEqual(TRUE);
  for (const [place, first] of [
    [placeAt(["10.96.7.7"], 10250), "10.96.7.7"],
    [placeAt(["10.96.7.8"], 31250), "10.96.7.8"],
    [undefined, "192.168.1.5"],
  ] as const) {
    const before = w.writes.length;
    w.source.move(place);
    await w.written(before + 1);
    await eventually(() => w.first() === first);
    expect((await w.read()).status.addresses).toEqual(TRUE);
    await w.clock.pass(120_000);
    expect(w.writes.length).toBe(before + 1);
  }
  expect(w.held().metadata.annotations?.[PLACE_ANNOTATION]).toBeUndefined();
  expect(w.held().status.daemonEndpoints.kubeletEndpoint.Port).toBe(10250);
});

test("a node that nobody has read since our start is looked at, where it is to be shown or says that it is", async () => {
  await using w = await world();
  w.source.move(placeAt(["10.96.7.7"], 10250));
  await w.written(1);
  await eventually(() => w.first() === "10.96.7.7");
  await using later = await world(w.held());
  // As at every return: who asks for the metadata alone asks whether the node is there.
  await later.askMetadata();
  await later.written(1);
  await eventually(() => later.first() === "192.168.1.5");
});

test("several changes at once are one write", async () => {
  await using w = await world();
  await w.read();
  for (const host of ["10.96.7.1", "10.96.7.2", "10.96.7.3"]) w.source.move(placeAt([host], 10250));
  await w.written(1);
  await eventually(() => w.first() === "10.96.7.3");
  await w.clock.pass(120_000);
  expect(w.writes.length).toBe(1);
});

test("while cut nothing is written; at the return what is astray is", async () => {
  await using w = await world();
  await w.read();
  w.setOnline(false);
  w.source.move(placeAt(["10.96.7.7"], 10250));
  await w.clock.pass(600_000);
  expect(w.writes).toEqual([]);
  w.setOnline(true);
  await w.written(1);
  await eventually(() => w.first() === "10.96.7.7");
});

test("kubelet's own next write takes the place along", async () => {
  await using w = await world();
  await w.read();
  w.source.move(placeAt(["10.96.7.7"], 10250));
  const heartbeat = JSON.stringify({ status: { conditions: [{ type: "Ready", status: "True" }] } });
  const { object } = await w.ask("PATCH", `${NODE}/status`, heartbeat, "application/strategic-merge-patch+json");
  expect(object.status.addresses).toEqual(TRUE);
  expect(w.first()).toBe("10.96.7.7");
  await w.clock.pass(120_000);
  expect(w.writes).toEqual([]);
});

test("a write that meets a newer version gives way, looks again and writes", async () => {
  await using w = await world();
  await w.read();
  w.source.move(placeAt(["10.96.7.7"], 10250));
  const stale = w.held();
  w.apiServer.put({ ...stale, metadata: { ...stale.metadata, labels: { newer: "1" } } });
  await w.written(1);
  await w.read();
  await w.written(2);
  await eventually(() => w.first() === "10.96.7.7");
  expect(w.held().metadata.labels.newer).toBe("1");
});

test("against somebody who writes addresses too it writes ever more seldom, and says so", async () => {
  await using w = await world();
  await w.read();
  w.undoEachBy(() => w.apiServer.put({ ...w.held(), status: { ...w.held().status, addresses: TRUE } }));
  w.source.move(placeAt(["10.96.7.7"], 10250));
  await w.written(8, 10_000);
  const gaps = w.writes.slice(1).map((at, index) => at - w.writes[index]!);
  for (const [index, gap] of gaps.entries()) expect(gap).toBeGreaterThanOrEqual(2_000 * 2 ** index);
  expect(w.findings.at(-1)).toMatchObject({ reason: "AddressesRewritten" });
});
