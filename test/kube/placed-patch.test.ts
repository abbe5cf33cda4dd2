/**
 * A patch of the node's status, rewritten for its place: applied to the node as
 * it is shown, it leaves what the patch itself leaves of the node as kubelet
 * wrote it, shown.
 */

import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { applyPatch } from "../../src/demo/api-server/patch.ts";
import { message } from "../../src/demo/api-server/schema.ts";
import { placeAt, type Place } from "../../src/kube/place.ts";
import { annotationOf, PLACE_ANNOTATION, shownAs, type Whereabouts } from "../../src/kube/placed-node.ts";
import { placedPatch, type PatchedNode } from "../../src/kube/placed-patch.ts";
import { strategicMerge } from "../../src/kube/strategic-merge.ts";

const STRATEGIC = "application/strategic-merge-patch+json";
const MERGE = "application/merge-patch+json";
const JSON_PATCH = "application/json-patch+json";
const place = placeAt(["10.96.7.7"], 31250);
const truth: Whereabouts = {
  addresses: [
    { type: "InternalIP", address: "192.168.1.5" },
    { type: "Hostname", address: "edge-1" },
  ],
  port: 10250,
};

/** The node as the API server holds it. */
function held(where: Whereabouts, at: Place | undefined): any {
  const now = shownAs(where, at);
  return {
    metadata: {
      name: "edge-1",
      annotations: { a: "b", ...(at && { [PLACE_ANNOTATION]: annotationOf({ truth: where, place: at }) }) },
    },
    status: {
      phase: "Running",
      addresses: now.addresses,
      daemonEndpoints: { kubeletEndpoint: { Port: now.port } },
    },
  };
}

const known = (node: Partial<PatchedNode> = {}): PatchedNode => ({
  truth,
  place,
  isAstray: false,
  isShown: true,
  hasAnnotations: true,
  hasOurs: true,
  ...node,
});
const apply = (object: unknown, type: string, patch: unknown) =>
  applyPatch(structuredClone(object) as never, type, structuredClone(patch) as never, message("Node")) as any;
/** By Go's order of merged lists, to which `strategicMerge` is held; the stand-in has one of its own. */
const meant = (type: string, patch: unknown) =>
  type === STRATEGIC
    ? (strategicMerge(held(truth, undefined), patch as never, "Node") as any)
    : apply(held(truth, undefined), type, patch);
const placed = (type: string, patch: unknown, node: PatchedNode) => {
  const bytes = placedPatch(type, Buffer.from(JSON.stringify(patch)), node);
  return bytes === undefined ? undefined : JSON.parse(Buffer.from(bytes).toString());
};
const whereOf = ({ status }: any): Whereabouts => ({
  addresses: status.addresses,
  port: status.daemonEndpoints.kubeletEndpoint.Port,
});

const entry = fc.record({
  type: fc.constantFrom("InternalIP", "ExternalIP", "Hostname"),
  address: fc.constantFrom("192.168.1.5", "192.168.1.6", "edge-1", "203.0.113.9"),
});
const list = fc.uniqueArray(entry, { minLength: 1, maxLength: 4, selector: ({ type }) => type });
const port = fc.option(fc.constantFrom(10250, 10260), { nil: undefined });
const withPort = (status: object, at: number | undefined) =>
  at === undefined ? status : { ...status, daemonEndpoints: { kubeletEndpoint: { Port: at } } };
const patches: Record<string, fc.Arbitrary<unknown>> = {
  [STRATEGIC]: fc
    .record({ addresses: list, isWhole: fc.boolean(), port, phase: fc.constantFrom("Running", "Pending") })
    .map(({ addresses, isWhole, port: at, phase }) => ({
      status: withPort({ phase, addresses: isWhole ? [...addresses, { $patch: "replace" }] : addresses }, at),
    })),
  [MERGE]: fc
    .record({ addresses: list, port })
    .map(({ addresses, port: at }) => ({ status: withPort({ addresses }, at) })),
  [JSON_PATCH]: fc.record({ addresses: list, port: fc.constantFrom(10250, 10260) }).map(({ addresses, port: at }) => [
    { op: "test", path: "/status/addresses/0", value: truth.addresses[0] },
    { op: "add", path: "/status/addresses", value: addresses },
    { op: "replace", path: "/status/daemonEndpoints/kubeletEndpoint/Port", value: at },
    { op: "replace", path: "/status/phase", value: "Pending" },
  ]),
};

describe.each([STRATEGIC, MERGE, JSON_PATCH])("%s", (type) => {
  test("of a node that is shown means the same as of one that is not", () => {
    fc.assert(
      fc.property(patches[type]!, (patch) => {
        const wanted = meant(type, patch);
        const got = apply(held(truth, place), type, placed(type, patch, known()));
        const shown = held(whereOf(wanted), place);
        expect(got.status.addresses).toEqual(shown.status.addresses);
        expect(got.status.daemonEndpoints).toEqual(shown.status.daemonEndpoints);
        expect(got.metadata).toEqual(shown.metadata);
        expect(got.status.phase).toBe(wanted.status.phase);
      }),
    );
  });

  test("without a place any more it takes the place and the annotation away", () => {
    fc.assert(
      fc.property(patches[type]!, (patch) => {
        const wanted = meant(type, patch);
        const got = apply(held(truth, place), type, placed(type, patch, known({ place: undefined, isAstray: true })));
        expect(got.status).toEqual(wanted.status);
        expect(got.metadata).toEqual(wanted.metadata);
      }),
    );
  });

  test("of something else goes as it is, or takes along what is astray", () => {
    const patch =
      type === JSON_PATCH
        ? [{ op: "replace", path: "/status/phase", value: "Pending" }]
        : { status: { phase: "Pending" } };
    expect(placed(type, patch, known())).toEqual(patch);
    const got = apply(
      held(truth, undefined),
      type,
      placed(type, patch, known({ isAstray: true, isShown: false, hasOurs: false })),
    );
    expect(got).toEqual({ ...held(truth, place), status: { ...held(truth, place).status, phase: "Pending" } });
  });
});

test("what is shown stays as it is under Go's merge, whatever stood there", () => {
  fc.assert(
    fc.property(list, list, (addresses, before) => {
      const shown = shownAs({ addresses, port: 10250 }, place).addresses;
      const patch = { status: { addresses: [...shown, { $patch: "replace" }] } };
      for (const at of [undefined, place]) {
        const after = strategicMerge(held({ addresses: before, port: 1 }, at), patch as never, "Node") as any;
        expect(after.status.addresses).toEqual(shown);
      }
    }),
  );
});

test("a JSON patch of a node without annotations brings the map along", () => {
  const bare = { ...held(truth, undefined), metadata: { name: "edge-1" } };
  const patch = [{ op: "replace", path: "/status/addresses/0/address", value: "192.168.1.6" }];
  const node = known({ isShown: false, hasAnnotations: false, hasOurs: false });
  const got = apply(bare, JSON_PATCH, placed(JSON_PATCH, patch, node));
  expect(Object.keys(got.metadata.annotations)).toEqual([PLACE_ANNOTATION]);
  expect(got.status.addresses).toContainEqual({ type: "InternalIP", address: "192.168.1.6" });
});

test.each([
  ["an apply", "application/apply-patch+yaml", { status: { addresses: truth.addresses } }],
  ["a status that is taken away", MERGE, { status: null }],
  ["a status that is replaced whole", STRATEGIC, { status: { $patch: "replace" } }],
  ["annotations that are taken away", MERGE, { metadata: { annotations: null }, status: { addresses: [] } }],
  ["operations on the whole status", JSON_PATCH, [{ op: "add", path: "/status", value: {} }]],
  ["a copy out of the addresses", JSON_PATCH, [{ op: "copy", from: "/status/addresses", path: "/status/x" }]],
] as const)("of %s nothing is made", (_name, type, patch) => {
  expect(placed(type, patch, known())).toBeUndefined();
});

test("a node that was never seen is shown by what replaces all, and by nothing less", () => {
  const all = { status: withPort({ addresses: [...truth.addresses, { $patch: "replace" }] }, 10250) };
  const unseen = known({ truth: undefined, isShown: false, hasAnnotations: false, hasOurs: false });
  expect(placed(STRATEGIC, all, unseen).status.addresses).toContainEqual({ type: "InternalIP", address: "10.96.7.7" });
  expect(placed(STRATEGIC, { status: { addresses: truth.addresses } }, unseen)).toBeUndefined();
});

test("a test that does not hold is left for the API server to refuse", () => {
  const patch = [
    { op: "test", path: "/status/addresses/0/address", value: "10.0.0.1" },
    { op: "remove", path: "/status/addresses/0" },
  ];
  expect(() => placed(JSON_PATCH, patch, known())).toThrow("does not fit");
});
