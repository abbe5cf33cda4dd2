/**
 * Which endpoints are put back, and that nothing else is touched.
 */
import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { ENDPOINT_REASONS, mendEndpoints, mendEndpointSlice } from "../../src/guard/judge-endpoints.ts";
import type { GuardedNode, GuardedPod } from "../../src/guard/cluster-view.ts";
import {
  guardedNode,
  guardedPod,
  jsonPatched,
  NODE_CONTROLLER,
  NOW_MS,
  requestOf,
  SHARED,
  SLICES,
  viewOf,
} from "./support.ts";

interface Endpoint {
  readonly addresses: readonly string[];
  readonly conditions?: Readonly<Record<string, boolean>>;
  readonly targetRef?: object;
}

const target = (name = "web", uid = "pod-uid") => ({ kind: "Pod", namespace: "shop", name, uid });
const unready = (more: object = {}): Endpoint => ({
  addresses: ["10.0.0.1"],
  conditions: { ready: false, serving: false, terminating: false },
  targetRef: target(),
  ...more,
});
const sliceOf = (...endpoints: Endpoint[]) => ({ addressType: "IPv4", endpoints, ports: [{ port: 80 }] });
const asked = (object: object, username = SLICES) =>
  requestOf({
    operation: "UPDATE",
    group: "discovery.k8s.io",
    resource: "endpointslices",
    object,
    user: { username, groups: [] },
  });

function mend(
  object: object,
  node: Partial<GuardedNode> | null = {},
  pod: Partial<GuardedPod> | null = {},
  username = SLICES,
) {
  const view = viewOf(node === null ? [] : [guardedNode(node)], pod === null ? [] : [guardedPod(pod)]);
  const repair = mendEndpointSlice(asked(object, username), view, NOW_MS);
  return { ...repair, after: jsonPatched(object, repair.patch) };
}

describe("EndpointSlices", () => {
  test("an endpoint that the node controller flipped is ready and serving again", () => {
    const { reason, after, pods, nodeNames } = mend(sliceOf(unready()));
    expect(reason).toBe("repaired");
    expect(after).toEqual(sliceOf(unready({ conditions: { ready: true, serving: true, terminating: false } })));
    expect({ pods, nodeNames }).toEqual({ pods: ["shop/web"], nodeNames: ["edge"] });
  });

  const left: [string, Parameters<typeof mend>, (typeof ENDPOINT_REASONS)[number]][] = [
    ["nothing is unready", [sliceOf(unready({ conditions: { ready: true } }))], "nothing-unready"],
    ["conditions unknown", [sliceOf(unready({ conditions: {} }))], "nothing-unready"],
    ["no conditions at all", [sliceOf({ addresses: ["10.0.0.1"], targetRef: target() })], "nothing-unready"],
    ["terminating", [sliceOf(unready({ conditions: { ready: false, terminating: true } }))], "nothing-unready"],
    ["endpoints null", [{ addressType: "IPv4", endpoints: null }], "nothing-unready"],
    ["no pod behind it", [sliceOf(unready({ targetRef: undefined }))], "no-pod"],
    ["a service's own target", [sliceOf(unready({ targetRef: { kind: "Node", name: "edge" } }))], "no-pod"],
    ["another pod of the same name", [sliceOf(unready({ targetRef: target("web", "other-uid") }))], "no-pod"],
    ["its probe failed", [sliceOf(unready()), {}, { containersReady: false }], "pod-unready-itself"],
    [
      "a readiness gate, by kubelet's word",
      [sliceOf(unready()), {}, { readyReason: "ReadinessGatesNotReady" }],
      "pod-unready-itself",
    ],
    ["the pod is deleted", [sliceOf(unready()), {}, { isDeleting: true }], "pod-unready-itself"],
    ["the pod has finished", [sliceOf(unready()), {}, { phase: "Succeeded" }], "pod-unready-itself"],
    ["the node is heard", [sliceOf(unready()), { hearing: "heard" }], "node-heard"],
    ["a person", [sliceOf(unready()), {}, {}, "alice"], "not-a-controller"],
    ["the node controller writes no slices", [sliceOf(unready()), {}, {}, NODE_CONTROLLER], "not-a-controller"],
    ["names", [{ ...sliceOf(unready()), addressType: "FQDN" }], "names-only"],
    ["the node is gone", [sliceOf(unready()), null], "node-gone"],
    ["not opted in", [sliceOf(unready()), { terms: undefined }], "not-opted-in"],
    [
      "released",
      [sliceOf(unready()), { terms: { via: "label", asksWitnesses: false, boundMs: undefined, released: "bound" } }],
      "released",
    ],
    ["a person's taint", [sliceOf(unready()), { taints: [{ key: "a", effect: "NoExecute" }] }], "tainted-by-person"],
    ["not ready by its own word", [sliceOf(unready()), { ready: "False" }], "not-ready-itself"],
    [
      "beyond its bound",
      [sliceOf(unready()), { terms: { via: "label", asksWitnesses: false, boundMs: 1, released: undefined } }],
      "bound-passed",
    ],
  ];
  test.each(left)("left as it is: %s", (_what, given, reason) => {
    const repair = mend(...given);
    expect({ reason: repair.reason, patch: repair.patch }).toEqual({ reason, patch: [] });
  });

  test("every reason is reached", () => {
    expect([...new Set(["repaired", ...left.map(([, , reason]) => reason)])].toSorted()).toEqual(
      [...ENDPOINT_REASONS].toSorted(),
    );
  });

  test("the shared user's slices are mended too", () => {
    expect(mend(sliceOf(unready()), {}, {}, SHARED).reason).toBe("repaired");
  });

  test("property: only ready and serving of cut-off endpoints change, and a second look finds nothing", () => {
    const pods = [
      guardedPod(),
      guardedPod({ name: "ill", uid: "ill", containersReady: false }),
      guardedPod({ name: "far", uid: "far", nodeName: "other" }),
    ];
    const view = viewOf([guardedNode(), guardedNode({ name: "other", hearing: "heard" })], pods);
    const endpoint = fc.record({
      addresses: fc.constantFrom(["10.0.0.1"], ["10.0.0.2", "10.0.0.3"]),
      conditions: fc.record(
        { ready: fc.boolean(), serving: fc.boolean(), terminating: fc.boolean() },
        { requiredKeys: [] },
      ),
      targetRef: fc.constantFrom(target(), target("ill", "ill"), target("far", "far"), target("none", "none")),
      zone: fc.constantFrom("a", "b"),
    });
    fc.assert(
      fc.property(fc.array(endpoint, { maxLength: 8 }), (endpoints) => {
        const before = sliceOf(...(endpoints as Endpoint[]));
        const { patch } = mendEndpointSlice(asked(before), view, NOW_MS);
        const after = jsonPatched(before, patch) as typeof before;
        expect(after.endpoints.length).toBe(endpoints.length);
        after.endpoints.forEach((one, index) => {
          const was = endpoints[index]!;
          const isCutOff = (was.targetRef as { name: string }).name === "web" && was.conditions.terminating !== true;
          const mended = isCutOff
            ? Object.fromEntries(
                Object.entries(was.conditions).map(([key, value]) => [key, key === "terminating" ? value : true]),
              )
            : was.conditions;
          expect(one).toEqual({ ...was, conditions: mended } as Endpoint);
        });
        expect(mendEndpointSlice(asked(after), view, NOW_MS).patch).toEqual([]);
      }),
      { numRuns: 300 },
    );
  });
});

describe("Endpoints", () => {
  const address = (ip: string, name = "web", uid = "pod-uid") => ({
    ip,
    nodeName: "edge",
    targetRef: target(name, uid),
    hostname: "kept",
  });
  const view = viewOf(
    [guardedNode()],
    [
      guardedPod(),
      guardedPod({ name: "two", uid: "two" }),
      guardedPod({ name: "ill", uid: "ill", containersReady: false }),
    ],
  );
  const after = (object: object) => {
    const request = requestOf({
      operation: "UPDATE",
      resource: "endpoints",
      object,
      user: { username: SLICES, groups: [] },
    });
    return jsonPatched(object, mendEndpoints(request, view, NOW_MS).patch);
  };

  test("addresses go back whole; what is ill stays where it is", () => {
    const [one, two, ill, well] = [address("1"), address("2", "two", "two"), address("3", "ill", "ill"), address("4")];
    expect(after({ subsets: [{ notReadyAddresses: [one, ill, two], addresses: [well], ports: [1] }] })).toEqual({
      subsets: [{ notReadyAddresses: [ill], addresses: [well, one, two], ports: [1] }],
    });
    expect(after({ subsets: [{ notReadyAddresses: [one, two] }] })).toEqual({ subsets: [{ addresses: [one, two] }] });
    expect(after({ subsets: [{ notReadyAddresses: [ill] }] })).toEqual({ subsets: [{ notReadyAddresses: [ill] }] });
  });

  test("an address that is ready already is not doubled", () => {
    const one = address("1");
    const object = { subsets: [{ notReadyAddresses: [one], addresses: [one] }] };
    expect(after(object)).toEqual(object);
  });

  test("none, null and empty", () => {
    for (const object of [{}, { subsets: null }, { subsets: [] }, { subsets: [{ addresses: null }] }])
      expect(after(object)).toEqual(object);
  });
});
