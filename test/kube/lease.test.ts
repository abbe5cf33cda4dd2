import { expect, test } from "bun:test";
import { isRenewal } from "../../src/kube/lease.ts";
import { envelope, message, text, varint } from "../../src/kube/protobuf-wire.ts";

const json = (renewTime: string, holderIdentity = "edge1") =>
  Buffer.from(
    JSON.stringify({
      kind: "Lease",
      apiVersion: "coordination.k8s.io/v1",
      metadata: { name: "edge1", resourceVersion: "41" },
      spec: { holderIdentity, leaseDurationSeconds: 40, renewTime },
    }),
  );
const protobuf = (seconds: number, { holder = "edge1", version = "41", kind = "Lease" } = {}) =>
  envelope("coordination.k8s.io/v1", kind, [
    message(1, [text(1, "edge1"), text(6, version)]),
    message(2, [text(1, holder), varint(2, 40), message(4, [varint(1, seconds)])]),
  ]);
const FIRST = "2026-11-24T10:00:00.000000Z";
const NEXT = "2026-11-24T10:00:10.000000Z";

test.each([
  { what: "JSON, renewed", before: json(FIRST), after: json(NEXT), isOne: true },
  {
    what: "JSON with a trailing newline, renewed",
    before: Buffer.concat([json(FIRST), Buffer.from("\n")]),
    after: json(NEXT),
    isOne: true,
  },
  { what: "JSON of another holder", before: json(FIRST), after: json(NEXT, "edge2"), isOne: false },
  { what: "protobuf, renewed", before: protobuf(1), after: protobuf(11), isOne: true },
  { what: "protobuf of another holder", before: protobuf(1), after: protobuf(11, { holder: "edge2" }), isOne: false },
  {
    what: "protobuf of another resourceVersion",
    before: protobuf(1),
    after: protobuf(11, { version: "42" }),
    isOne: false,
  },
  { what: "another kind", before: protobuf(1, { kind: "Pod" }), after: protobuf(1, { kind: "Pod" }), isOne: false },
  { what: "one of each format", before: json(FIRST), after: protobuf(11), isOne: false },
  { what: "half a message", before: protobuf(1), after: protobuf(11).subarray(0, 40), isOne: false },
])("isRenewal: $what is $isOne", ({ before, after, isOne }) => {
  expect(isRenewal(before, after)).toBe(isOne);
});
