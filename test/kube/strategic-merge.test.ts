/**
 * Strategic merge and JSON merge, case by case; that the first agrees with Go
 * everywhere else is what `test/lab/strategic-merge.test.ts` shows.
 */
import { describe, expect, test } from "bun:test";
import { type Json, writeExact } from "../../src/kube/exact-json.ts";
import { PatchError } from "../../src/kube/patch-values.ts";
import { jsonMerge, strategicMerge } from "../../src/kube/strategic-merge.ts";

interface Case {
  readonly title: string;
  readonly kind?: "Pod" | "Node";
  readonly original: Json;
  readonly patch: Json;
  readonly expected: Json;
}

const ready = { type: "Ready", status: "True", reason: "KubeletReady" };
const pressure = { type: "MemoryPressure", status: "False" };
const custom = { type: "example.com/Gate", status: "True" };

const CASES: readonly Case[] = [
  {
    title: "null deletes a field, and an unknown field is added",
    original: { metadata: { labels: { a: "1", b: "2" } } },
    patch: { metadata: { labels: { a: null, c: "3" } } },
    expected: { metadata: { labels: { b: "2", c: "3" } } },
  },
  {
    title: "a null for nothing leaves nothing",
    original: { status: {} },
    patch: { status: { phase: null } },
    expected: { status: {} },
  },
  { title: "a patch of null changes nothing", original: { status: {} }, patch: null, expected: { status: {} } },
  {
    title: "a heartbeat touches its own condition only",
    kind: "Node",
    original: { status: { conditions: [pressure, ready] } },
    patch: {
      status: {
        "$setElementOrder/conditions": [{ type: "MemoryPressure" }, { type: "Ready" }],
        conditions: [{ type: "Ready", status: "False", reason: null }],
      },
    },
    expected: { status: { conditions: [pressure, { type: "Ready", status: "False" }] } },
  },
  {
    title: "a condition that only the server has comes right before the first known one that it preceded",
    original: { status: { conditions: [custom, ready] } },
    patch: {
      status: {
        "$setElementOrder/conditions": [{ type: "Initialized" }, { type: "Ready" }],
        conditions: [{ type: "Initialized", status: "True" }],
      },
    },
    expected: { status: { conditions: [{ type: "Initialized", status: "True" }, custom, ready] } },
  },
  {
    title: "a new condition comes first without an order",
    original: { status: { conditions: [custom] } },
    patch: { status: { conditions: [ready] } },
    expected: { status: { conditions: [ready, custom] } },
  },
  {
    title: "the order alone moves items",
    original: { status: { podIPs: [{ ip: "10.0.0.1" }, { ip: "fd00::1" }] } },
    patch: { status: { "$setElementOrder/podIPs": [{ ip: "fd00::1" }, { ip: "10.0.0.1" }] } },
    expected: { status: { podIPs: [{ ip: "fd00::1" }, { ip: "10.0.0.1" }] } },
  },
  {
    title: "an address changes with delete and add",
    original: { status: { podIPs: [{ ip: "10.0.0.1" }], hostIPs: [{ ip: "192.0.2.1" }] } },
    patch: {
      status: {
        "$setElementOrder/podIPs": [{ ip: "10.0.0.9" }],
        podIPs: [{ ip: "10.0.0.9" }, { $patch: "delete", ip: "10.0.0.1" }],
        "$setElementOrder/hostIPs": [{ ip: "192.0.2.1" }, { ip: "2001:db8::1" }],
        hostIPs: [{ ip: "2001:db8::1" }],
      },
    },
    expected: { status: { podIPs: [{ ip: "10.0.0.9" }], hostIPs: [{ ip: "192.0.2.1" }, { ip: "2001:db8::1" }] } },
  },
  {
    title: "after a deletion the new items count as the server's last, as in Go's shared array",
    original: { status: { conditions: [{ type: "a" }, { type: "b" }, { type: "c" }] } },
    patch: {
      status: {
        "$setElementOrder/conditions": [{ type: "v" }, { type: "b" }],
        conditions: [{ type: "v" }, { type: "a", $patch: "delete" }],
      },
    },
    expected: { status: { conditions: [{ type: "c" }, { type: "v" }, { type: "b" }] } },
  },
  {
    title: "container statuses are replaced whole",
    original: { status: { containerStatuses: [{ name: "a", ready: true }, { name: "b" }] } },
    patch: { status: { containerStatuses: [{ name: "a" }] } },
    expected: { status: { containerStatuses: [{ name: "a" }] } },
  },
  {
    title: "images and volumes in use are replaced whole",
    kind: "Node",
    original: { status: { images: [{ names: ["a"] }], volumesInUse: ["x", "y"] } },
    patch: { status: { images: [{ names: ["b"] }], volumesInUse: ["z"] } },
    expected: { status: { images: [{ names: ["b"] }], volumesInUse: ["z"] } },
  },
  {
    title: "node addresses merge by type, which merges two of one type into the first",
    kind: "Node",
    original: {
      status: {
        addresses: [
          { type: "InternalIP", address: "192.0.2.1" },
          { type: "Hostname", address: "n" },
        ],
      },
    },
    patch: {
      status: {
        addresses: [
          { type: "InternalIP", address: "192.0.2.2" },
          { type: "InternalIP", address: "2001:db8::2" },
        ],
      },
    },
    expected: {
      status: {
        addresses: [
          { type: "InternalIP", address: "2001:db8::2" },
          { type: "Hostname", address: "n" },
        ],
      },
    },
  },
  {
    title: "a node's address list that kubelet replaces is replaced",
    kind: "Node",
    original: {
      status: {
        addresses: [
          { type: "InternalIP", address: "192.0.2.1" },
          { type: "Hostname", address: "n" },
        ],
      },
    },
    patch: { status: { addresses: [{ type: "InternalIP", address: "192.0.2.9" }, { $patch: "replace" }] } },
    expected: { status: { addresses: [{ type: "InternalIP", address: "192.0.2.9" }] } },
  },
  {
    title: "pod CIDRs are a set",
    kind: "Node",
    original: { spec: { podCIDRs: ["10.1.0.0/24"] } },
    patch: { spec: { podCIDRs: ["10.1.0.0/24", "fd00::/64"] } },
    expected: { spec: { podCIDRs: ["10.1.0.0/24", "fd00::/64"] } },
  },
  {
    title: "taints and tolerations are replaced whole",
    kind: "Node",
    original: { spec: { taints: [{ key: "a", effect: "NoSchedule" }] } },
    patch: { spec: { taints: [{ key: "b", effect: "NoExecute" }] } },
    expected: { spec: { taints: [{ key: "b", effect: "NoExecute" }] } },
  },
  {
    title: "finalizers are added, deleted and ordered",
    original: { metadata: { finalizers: ["a", "b", "c"] } },
    patch: {
      metadata: {
        "$deleteFromPrimitiveList/finalizers": ["b"],
        "$setElementOrder/finalizers": ["d", "a"],
        finalizers: ["d"],
      },
    },
    expected: { metadata: { finalizers: ["d", "a", "c"] } },
  },
  {
    title: "owner references merge by uid",
    original: { metadata: { ownerReferences: [{ uid: "1", kind: "ReplicaSet" }] } },
    patch: { metadata: { ownerReferences: [{ uid: "1", controller: true }, { uid: "2" }] } },
    expected: { metadata: { ownerReferences: [{ uid: "1", kind: "ReplicaSet", controller: true }, { uid: "2" }] } },
  },
  {
    title: "a container merges by name, and its environment within",
    original: { spec: { containers: [{ name: "app", image: "a:1", env: [{ name: "X", value: "1" }] }] } },
    patch: { spec: { containers: [{ name: "app", image: "a:2", env: [{ name: "Y", value: "2" }] }] } },
    expected: {
      spec: {
        containers: [
          {
            name: "app",
            image: "a:2",
            env: [
              { name: "Y", value: "2" },
              { name: "X", value: "1" },
            ],
          },
        ],
      },
    },
  },
  {
    title: "a volume that changes its source retains the named keys only",
    original: { spec: { volumes: [{ name: "v", hostPath: { path: "/x" } }] } },
    patch: { spec: { volumes: [{ name: "v", $retainKeys: ["name", "emptyDir"], emptyDir: {} }] } },
    expected: { spec: { volumes: [{ name: "v", emptyDir: {} }] } },
  },
  {
    title: "a map is replaced",
    original: { metadata: { labels: { a: "1" } } },
    patch: { metadata: { labels: { $patch: "replace", b: "2" } } },
    expected: { metadata: { labels: { b: "2" } } },
  },
  {
    title: "a map is emptied by delete",
    original: { metadata: { labels: { a: "1" } } },
    patch: { metadata: { labels: { $patch: "delete" } } },
    expected: { metadata: { labels: {} } },
  },
  {
    title: "directives of a list that the server never had leave no trace",
    original: {},
    patch: {
      status: {
        "$setElementOrder/conditions": [{ type: "Ready" }],
        conditions: [ready, { $patch: "delete", type: "x" }],
      },
    },
    expected: { status: { conditions: [ready] } },
  },
  {
    title: "an integer above 2^53 keeps its digits, and is a key like any other",
    original: { status: { observedGeneration: 9007199254740993n, finalizers: [9007199254740993n] } },
    patch: {
      status: { startedAt: 9223372036854775807n, "$deleteFromPrimitiveList/finalizers": [9007199254740993n] },
    },
    expected: {
      status: { observedGeneration: 9007199254740993n, startedAt: 9223372036854775807n, finalizers: [] },
    },
  },
  {
    title: "a field unknown to this release merges as a map and is replaced as a list",
    original: { status: { newMap: { a: 1, b: 1 }, newList: [{ name: "a" }] } },
    patch: { status: { newMap: { b: 2 }, newList: [{ name: "b" }] } },
    expected: { status: { newMap: { a: 1, b: 2 }, newList: [{ name: "b" }] } },
  },
];

describe("strategicMerge", () => {
  test.each(CASES.map((row) => [row.title, row] as const))("%s", (_, { kind = "Pod", original, patch, expected }) => {
    const before = writeExact([original, patch]);

    expect(strategicMerge(original, patch, kind)).toStrictEqual(expected);

    expect(writeExact([original, patch])).toBe(before);
  });

  const REFUSED: readonly { title: string; original: Json; patch: Json; statusCode: 400 | 422 }[] = [
    {
      title: "an item without its merge key",
      original: { status: { conditions: [ready] } },
      patch: { status: { conditions: [{ status: "True" }] } },
      statusCode: 422,
    },
    {
      title: "a deletion without its merge key",
      original: { status: { conditions: [ready] } },
      patch: { status: { conditions: [{ $patch: "delete" }] } },
      statusCode: 422,
    },
    {
      title: "a merge directive in a list",
      original: { status: { conditions: [ready] } },
      patch: { status: { conditions: [{ $patch: "merge", type: "Ready" }] } },
      statusCode: 422,
    },
    { title: "an unknown directive in a map", original: {}, patch: { $patch: "merge" }, statusCode: 422 },
    {
      title: "a field that its own $retainKeys leave out",
      original: { spec: { volumes: [{ name: "v" }] } },
      patch: { spec: { volumes: [{ name: "v", $retainKeys: ["name"], emptyDir: {} }] } },
      statusCode: 400,
    },
    { title: "$retainKeys that are no list", original: {}, patch: { $retainKeys: "name" }, statusCode: 400 },
    {
      title: "an order without the item that is added",
      original: { status: { conditions: [ready] } },
      patch: { status: { "$setElementOrder/conditions": [{ type: "Ready" }], conditions: [pressure] } },
      statusCode: 422,
    },
    {
      title: "an order that names no field",
      original: {},
      patch: { $setElementOrder: [] },
      statusCode: 400,
    },
    {
      title: "an order that is no list",
      original: { status: {} },
      patch: { status: { "$setElementOrder/conditions": "Ready" } },
      statusCode: 422,
    },
    {
      title: "a primitive deletion that names no field",
      original: { metadata: {} },
      patch: { metadata: { $deleteFromPrimitiveListfinalizers: ["a"] } },
      statusCode: 400,
    },
    {
      title: "scalars among maps",
      original: { status: { conditions: [ready] } },
      patch: { status: { conditions: ["Ready"] } },
      statusCode: 422,
    },
    {
      title: "a list in a list",
      original: { metadata: { finalizers: ["a"] } },
      patch: { metadata: { finalizers: [["b"]] } },
      statusCode: 422,
    },
    { title: "a patch that is a list", original: {}, patch: [], statusCode: 400 },
    { title: "an object that is a text", original: "pod", patch: {}, statusCode: 400 },
    { title: "a patch nested beyond reason", original: {}, patch: nested(5000), statusCode: 400 },
  ];

  test.each(REFUSED.map((row) => [row.title, row] as const))("refuses %s", (_, { original, patch, statusCode }) => {
    const error = caught(() => strategicMerge(original, patch, "Pod"));

    expect(error).toBeInstanceOf(PatchError);
    expect(error).toMatchObject({ code: "BAD_PATCH", statusCode });
  });

  test("a refusal tells fields and never values", () => {
    const patch = { spec: { volumes: [{ name: "v", $retainKeys: ["name"], secretText: "hunter2" }] } };
    const error = caught(() => strategicMerge({ spec: { volumes: [{ name: "v" }] } }, patch, "Pod"));

    expect(String(error)).toContain("secretText");
    expect(String(error)).not.toContain("hunter2");
  });
});

describe("jsonMerge", () => {
  // RFC 7386, Appendix A.
  const EXAMPLES: readonly (readonly [Json, Json, Json])[] = [
    [{ a: "b" }, { a: "c" }, { a: "c" }],
    [{ a: "b" }, { b: "c" }, { a: "b", b: "c" }],
    [{ a: "b" }, { a: null }, {}],
    [{ a: "b", b: "c" }, { a: null }, { b: "c" }],
    [{ a: ["b"] }, { a: "c" }, { a: "c" }],
    [{ a: "c" }, { a: ["b"] }, { a: ["b"] }],
    [{ a: { b: "c" } }, { a: { b: "d", c: null } }, { a: { b: "d" } }],
    [{ a: [{ b: "c" }] }, { a: [1] }, { a: [1] }],
    [
      ["a", "b"],
      ["c", "d"],
      ["c", "d"],
    ],
    [{ a: "b" }, ["c"], ["c"]],
    [{ a: "foo" }, null, null],
    [{ a: "foo" }, "bar", "bar"],
    [{ e: null }, { a: 1 }, { e: null, a: 1 }],
    [[1, 2], { a: "b", c: null }, { a: "b" }],
    [{}, { a: { bb: { ccc: null } } }, { a: { bb: {} } }],
  ];

  test.each(EXAMPLES.map((row) => [JSON.stringify(row[0]), JSON.stringify(row[1]), row] as const))(
    "%s with %s",
    (_, __, [original, patch, expected]) => {
      expect(jsonMerge(original, patch)).toStrictEqual(expected);
    },
  );

  test("directives of the other format are plain fields", () => {
    expect(jsonMerge({}, { $patch: "delete" })).toEqual({ $patch: "delete" });
  });
});

test.each([
  ["strategicMerge", (original: Json, patch: Json) => strategicMerge(original, patch, "Pod")],
  ["jsonMerge", jsonMerge],
] as const)("%s keeps __proto__ and constructor as data", (_, merge) => {
  const patch: Json = JSON.parse('{"__proto__":{"polluted":1},"constructor":{"prototype":{"polluted":1}}}');
  const merged = merge({ metadata: {} }, { metadata: patch });
  const again = merge(merged, { metadata: patch });

  expect(JSON.stringify(again)).toBe(`{"metadata":${JSON.stringify(patch)}}`);
  expect(Object.hasOwn(Object.prototype, "polluted")).toBe(false);
});

test("nothing of the arguments is shared with the result", () => {
  const original = { metadata: { labels: { a: "1" } } };
  const patch = { status: { containerStatuses: [{ name: "app", state: { running: {} } }] } };
  const frozen = JSON.stringify([original, patch]);
  const merged = strategicMerge(deepFreeze(original), deepFreeze(patch), "Pod");

  expect(merged).toEqual({ ...original, ...patch });
  expect(JSON.stringify([original, patch])).toBe(frozen);
  expect(Object.isFrozen((merged as typeof original).metadata.labels)).toBe(false);
  expect(Object.isFrozen((merged as unknown as typeof patch).status.containerStatuses)).toBe(false);
});

function caught(action: () => unknown): unknown {
  try {
    action();
  } catch (error) {
    return error;
  }
  return undefined;
}

function nested(depth: number): Json {
  let value: Json = {};
  for (let level = 0; level < depth; level++) value = { spec: value };
  return value;
}

function deepFreeze<T>(value: T): T {
  if (typeof value === "object" && value !== null) {
    Object.values(value).forEach(deepFreeze);
    Object.freeze(value);
  }
  return value;
}
