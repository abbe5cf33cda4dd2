/**
 * Types alone: each `@ts-expect-error` is a field that `run check` must refuse, and fails it when it does not.
 */
import { expect, test } from "bun:test";
import type { CoreV1Event, V1Lease, V1NetworkPolicy, V1Node } from "@kubernetes/client-node";
import * as v from "valibot";
import { patched, reads, sent, type Wire } from "../../src/kube/wire.ts";

const isCareful = Math.random() > 2;

test("an object is sent as it is, and no field of it is misspelt", () => {
  const object = { metadata: { name: "a" }, spec: { holderIdentity: "me", leaseDurationSeconds: 15 } };
  expect(sent<V1Lease>()(object)).toBe(object);
  sent<V1Lease>()({ spec: { renewTime: "2026-01-01T00:00:00.000000Z" } });
  // @ts-expect-error holderIdentity
  sent<V1Lease>()({ spec: { holderIdentty: "me" } });
  // @ts-expect-error labels, deep inside
  sent<V1Lease>()({ metadata: { lables: { a: "b" } } });
  // @ts-expect-error annotations, where a spread would hide it
  sent<V1Lease>()({ metadata: { name: "a", ...(isCareful ? { annotatons: { a: "b" } } : {}) } });
  // @ts-expect-error a text for a number
  sent<V1Lease>()({ spec: { leaseDurationSeconds: "15" } });
  // @ts-expect-error a time is a text on the wire
  sent<V1Lease>()({ spec: { renewTime: new Date(0) } });
});

test("fields have their names on the wire, and required ones are required", () => {
  sent<V1NetworkPolicy>()({ spec: { podSelector: {}, ingress: [{ from: [{ podSelector: {} }] }] } });
  // @ts-expect-error from, not _from
  sent<V1NetworkPolicy>()({ spec: { podSelector: {}, ingress: [{ _from: [] }] } });
  // @ts-expect-error an Event says about what it is
  sent<CoreV1Event>()({ metadata: {} });
  const time: Wire<V1Node>["metadata"] = { creationTimestamp: "2026-01-01T00:00:00Z" };
  expect(time?.creationTimestamp).toBe("2026-01-01T00:00:00Z");
});

test("a patch has any part of an object, takes away with null, and misspells nothing", () => {
  patched<V1Node>()({ metadata: { labels: { mine: null } }, spec: { taints: [] } });
  patched<V1Node>()({ status: { conditions: [{ $patch: "delete", type: "Mine" }] } });
  // @ts-expect-error conditions
  patched<V1Node>()({ status: { condition: [] } });
  // @ts-expect-error lastHeartbeatTime, in an element
  patched<V1Node>()({ status: { conditions: [{ type: "Mine", lastHeartBeatTime: null }] } });
});

test("a schema reads what is there", () => {
  const schema = reads<V1Node>()(v.object({ status: v.nullish(v.object({ phase: v.nullish(v.string()) })) }));
  expect(v.parse(schema, { status: { phase: "Running" } })).toEqual({ status: { phase: "Running" } });
  reads<V1Node>()(v.object({ spec: v.object({ taints: v.array(v.looseObject({ key: v.string() })) }) }));
  // @ts-expect-error taints
  reads<V1Node>()(v.object({ spec: v.object({ taint: v.array(v.object({ key: v.string() })) }) }));
  const misspelt = v.nullish(v.array(v.object({ kye: v.string() })));
  // @ts-expect-error key, in a list that may be null
  reads<V1Node>()(v.object({ spec: v.nullish(v.object({ taints: misspelt })) }));
});
