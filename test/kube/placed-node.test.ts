/**
 * A node shown at a place and restored is the node that kubelet wrote, byte
 * for byte, in JSON and in protobuf.
 */

import { expect, test } from "bun:test";
import fc from "fast-check";
import { placeAt, type NodeAddress, type Place } from "../../src/kube/place.ts";
import { editedJson, restoredJson, type Lens } from "../../src/kube/placed-json.ts";
import {
  annotationOf,
  PLACE_ANNOTATION,
  readAnnotation,
  showing,
  shownAs,
  trueOf,
  type SeenNode,
  type Whereabouts,
} from "../../src/kube/placed-node.ts";
import { editedProtobuf, restoredEvent, restoredProtobuf } from "../../src/kube/placed-protobuf.ts";
import { envelope, message, openEnvelope, text, varint } from "../../src/kube/protobuf-wire.ts";

const NAME = "edge-1";
const TYPES = ["Hostname", "InternalDNS", "InternalIP", "ExternalDNS", "ExternalIP"];

const hosts = fc.oneof(fc.ipV4(), fc.constantFrom(NAME, "gw.example", "fd00::7", "10.96.7.7", "10.96.7.8"));
const addresses = (minLength: number) =>
  fc.uniqueArray(fc.record({ type: fc.constantFrom(...TYPES), address: hosts }), {
    minLength,
    maxLength: 6,
    selector: ({ type, address }) => `${type} ${address}`,
  });
const wheres = fc.record({ addresses: addresses(1), port: fc.constantFrom(0, 10250, 10251, 30_443) });
const places: fc.Arbitrary<Place> = fc.record({ addresses: addresses(1), port: fc.constantFrom(10250, 30_443) });

/** Restores from the annotation alone. */
const lens: Lens = {
  name: NAME,
  shownOf: ({ annotation }) => (annotation === undefined ? undefined : readAnnotation(annotation)),
  heardOf() {},
  lastShown: () => undefined,
};
const show = (place: Place) => (node: SeenNode) => showing(node.now, place);
const bytesOf = (value: unknown, indent?: number) => Buffer.from(JSON.stringify(value, null, indent));
const read = (bytes: Uint8Array) => JSON.parse(Buffer.from(bytes).toString());

function nodeOf({ addresses: list, port }: Whereabouts, annotations?: Record<string, string>) {
  return {
    kind: "Node",
    apiVersion: "v1",
    metadata: { name: NAME, uid: "u-1", resourceVersion: "41", ...(annotations && { annotations }), future: [1] },
    spec: { podCIDR: "10.244.1.0/24", future: { x: 1.5 } },
    status: {
      capacity: { cpu: "4", memory: "9007199254740993" },
      addresses: list,
      daemonEndpoints: { kubeletEndpoint: { Port: port } },
      future: null,
    },
  };
}

function protobufNode({ addresses: list, port }: Whereabouts, annotations: Record<string, string>): Uint8Array {
  const entries = Object.entries(annotations).map(([key, value]) => message(12, [text(1, key), text(2, value)]));
  const metadata = message(1, [text(1, NAME), text(5, "u-1"), text(6, "41"), ...entries, text(99, "future")]);
  const status = message(3, [
    message(1, [text(1, "cpu"), message(2, [text(1, "4")])]),
    ...list.map(({ type, address }) => message(5, [text(1, type), text(2, address)])),
    message(6, [message(1, [varint(1, port)])]),
    varint(98, 7),
  ]);
  return Buffer.concat([metadata, message(2, [text(1, "10.244.1.0/24")]), status, text(97, "future")]);
}

test("whereabouts that are shown and restored are the truth, whatever the place", () => {
  fc.assert(
    fc.property(wheres, places, (truth, place) => {
      const now = shownAs(truth, place);
      expect(trueOf(now, { truth, place })).toEqual(truth);
      expect(trueOf(now, readAnnotation(annotationOf({ truth, place }))!)).toEqual(truth);
      // The API server refuses what stands there twice.
      expect(new Set(now.addresses.map(({ type, address }) => `${type} ${address}`)).size).toBe(now.addresses.length);
      for (const one of truth.addresses) expect(now.addresses).toContainEqual(one);
    }),
  );
});

test("the place stands first in each type that the node has, and under no other", () => {
  fc.assert(
    fc.property(wheres, fc.uniqueArray(hosts, { minLength: 1, maxLength: 2 }), (truth, at) => {
      const place = placeAt(at, 10250);
      const types = new Set(truth.addresses.map(({ type }) => type));
      const usable = place.addresses.filter(({ type }) => types.has(type));
      const { addresses: now } = shownAs(truth, place);
      for (const type of types) {
        const wanted = usable.find((one) => one.type === type);
        if (wanted !== undefined) expect(now.find((one) => one.type === type)).toEqual(wanted);
      }
      if (usable.length > 0) expect(now.every(({ type }) => types.has(type))).toBe(true);
    }),
  );
});

test.each([
  ["as Go writes it", undefined],
  ["indented", 2],
])("JSON %s: up and down again are the same bytes", (_name, indent) => {
  fc.assert(
    fc.property(
      wheres,
      places,
      fc.option(fc.dictionary(fc.string(), fc.string(), { maxKeys: 2 })),
      (truth, place, extra) => {
        const written = bytesOf(nodeOf(truth, extra ?? undefined));
        const sent = editedJson(written, NAME, show(place))!;
        const shown = bytesOf(read(sent), indent);
        expect(read(shown).status.addresses).toEqual(shownAs(truth, place).addresses);
        expect(read(shown).status.daemonEndpoints.kubeletEndpoint.Port).toBe(place.port);
        const restored = restoredJson(shown, lens);
        // A map that was empty before it held ours is gone: Go writes none.
        const kept =
          extra !== null && Object.keys(extra).length === 0 ? nodeOf(truth) : nodeOf(truth, extra ?? undefined);
        expect(Buffer.from(restored).toString()).toBe(bytesOf(kept, indent).toString());
      },
    ),
  );
});

test("protobuf: up and down again are the same bytes, alone, in a list and in a watch", () => {
  fc.assert(
    fc.property(wheres, places, fc.dictionary(fc.string(), fc.string(), { maxKeys: 2 }), (truth, place, extra) => {
      const written = protobufNode(truth, extra);
      const other = Buffer.concat([message(1, [text(1, "edge-10")]), message(3, [])]);
      const whole = Buffer.from(envelope("v1", "Node", [written]));
      const shown = editedProtobuf(whole, NAME, show(place))!;
      expect(Buffer.from(restoredProtobuf(shown, lens)).equals(whole)).toBe(true);

      // What stands in the envelope, cut out by making it an item.
      const bare = bareOf(shown);
      const list = (node: Uint8Array) =>
        Buffer.from(envelope("v1", "NodeList", [message(1, []), message(2, [other]), message(2, [node])]));
      expect(Buffer.from(restoredProtobuf(list(bare), lens)).equals(list(written))).toBe(true);
      const event = (node: Uint8Array) =>
        Buffer.concat([text(1, "MODIFIED"), message(2, [message(1, [envelope("v1", "Node", [node])])])]);
      expect(Buffer.from(restoredEvent(event(bare), lens)).equals(event(written))).toBe(true);
    }),
  );
});

/** The content of the envelope's raw field. */
function bareOf(bytes: Uint8Array): Uint8Array {
  const { start, end } = openEnvelope(bytes, 0, bytes.length);
  return bytes.subarray(start, end);
}

const truth: Whereabouts = {
  addresses: [
    { type: "InternalIP", address: "192.168.1.5" },
    { type: "Hostname", address: NAME },
  ],
  port: 10250,
};
const place = placeAt(["10.96.7.7"], 10250);
const shownNode = read(editedJson(bytesOf(nodeOf(truth, { a: "b" })), NAME, show(place))!);

test("an event, a Table's row and metadata alone are restored as the node is", () => {
  const event = (object: unknown) => bytesOf({ type: "MODIFIED", object });
  expect(restoredJson(event(shownNode), lens)).toEqual(event(nodeOf(truth, { a: "b" })));
  const { metadata } = shownNode;
  const partial = (meta: unknown) =>
    bytesOf({ kind: "PartialObjectMetadata", apiVersion: "meta.k8s.io/v1", metadata: meta });
  expect(restoredJson(partial(metadata), lens)).toEqual(partial(nodeOf(truth, { a: "b" }).metadata));
  const row = (ip: string, meta: unknown) =>
    bytesOf({ cells: [NAME, "Ready", "<none>", "5d", "v1.37.2", ip, "<none>", "Debian"], object: { metadata: meta } });
  expect(restoredJson(row("10.96.7.7", metadata), lens)).toEqual(
    row("192.168.1.5", nodeOf(truth, { a: "b" }).metadata),
  );
  const table = (one: Uint8Array) => bytesOf({ kind: "Table", apiVersion: "meta.k8s.io/v1", rows: [read(one)] });
  expect(restoredJson(event(read(table(row("10.96.7.7", metadata)))), lens)).toEqual(
    event(read(table(row("192.168.1.5", nodeOf(truth, { a: "b" }).metadata)))),
  );
});

test("a row without its object is restored by what was shown last", () => {
  const row = (ip: string) => bytesOf({ cells: [NAME, "Ready", ip, "<none>"], object: null });
  expect(restoredJson(row("10.96.7.7"), { ...lens, lastShown: () => ({ truth, place }) })).toEqual(row("192.168.1.5"));
});

test("another node, and one of a longer name, keep their bytes", () => {
  const other = bytesOf({ ...shownNode, metadata: { ...shownNode.metadata, name: "edge-10" } });
  expect(restoredJson(other, lens)).toBe(other);
  expect(editedJson(other, NAME, show(place))).toBeUndefined();
});

test.each([
  [
    "somebody's own list",
    [{ type: "InternalIP", address: "172.16.0.9" }],
    [{ type: "InternalIP", address: "172.16.0.9" }],
  ],
  [
    "somebody's list with the place in it",
    [place.addresses[2]!, { type: "ExternalIP", address: "203.0.113.9" }],
    [{ type: "ExternalIP", address: "203.0.113.9" }],
  ],
  ["the place alone", [place.addresses[2]!], truth.addresses],
] as [string, NodeAddress[], NodeAddress[]][])(
  "behind the annotation, %s is restored without the place",
  (_name, now, left) => {
    expect(trueOf({ addresses: now, port: 10250 }, { truth, place }).addresses).toEqual(left);
  },
);

test.each([
  ["no JSON", "{"],
  ["another shape", '{"addresses":"10.0.0.1"}'],
  ["far too long", JSON.stringify({ addresses: [], port: 1, place, pad: "x".repeat(17_000) })],
])("an annotation that is %s restores nothing and stays", (_name, annotation) => {
  expect(readAnnotation(annotation)).toBeUndefined();
  const node = bytesOf({
    ...shownNode,
    metadata: { ...shownNode.metadata, annotations: { [PLACE_ANNOTATION]: annotation } },
  });
  expect(restoredJson(node, lens)).toBe(node);
});

test("a node without addresses is not shown: nobody could dial it before", () => {
  expect(showing({ addresses: [], port: 10250 }, place)).toEqual({});
});
