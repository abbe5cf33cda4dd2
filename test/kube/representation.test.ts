import { describe, expect, test } from "bun:test";
import { jsonCodec } from "../../src/kube/json-codec.ts";
import { protobufCodec } from "../../src/kube/protobuf-codec.ts";
import {
  acceptedRepresentations,
  codecFor,
  mediaType,
  representationKey,
  representationsOfKey,
  upstreamAccept,
} from "../../src/kube/representation.ts";

const table = "application/json;as=Table;v=v1;g=meta.k8s.io";
const partial = "application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";

describe("acceptedRepresentations", () => {
  const cases = [
    { name: "no header", accept: undefined, keys: ["json"] },
    { name: "an empty header", accept: " ", keys: ["json"] },
    { name: "curl", accept: "*/*", keys: ["json"] },
    { name: "kubelet", accept: "application/vnd.kubernetes.protobuf,application/json", keys: ["protobuf", "json"] },
    { name: "CoreDNS", accept: "application/vnd.kubernetes.protobuf, */*", keys: ["protobuf", "json"] },
    {
      name: "a watch",
      accept: "application/vnd.kubernetes.protobuf;stream=watch,application/json;stream=watch",
      keys: ["protobuf", "json"],
    },
    { name: "protobuf alone", accept: "application/vnd.kubernetes.protobuf", keys: ["protobuf"] },
    {
      name: "kubectl get",
      accept: `${table},application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json`,
      keys: ["json;Table;v1", "json;Table;v1beta1", "json"],
    },
    {
      name: "a metadata informer",
      accept: `${partial},application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json`,
      keys: ["protobuf;PartialObjectMetadata;v1", "json;PartialObjectMetadata;v1", "json"],
    },
    {
      name: "metadata of one object",
      accept: "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1",
      keys: ["json;PartialObjectMetadata;v1"],
    },
    {
      name: "quality before order",
      accept: "application/json;q=0.5, application/vnd.kubernetes.protobuf",
      keys: ["protobuf", "json"],
    },
    {
      name: "wildcards behind names of the same quality",
      accept: "*/*, application/vnd.kubernetes.protobuf",
      keys: ["protobuf", "json"],
    },
    { name: "a wildcard subtype", accept: "application/*;q=0.1", keys: ["json"] },
    { name: "quality 0", accept: "application/json;q=0, application/vnd.kubernetes.protobuf", keys: ["protobuf"] },
    { name: "capitals and spaces", accept: " Application/JSON ; Charset=utf-8 ", keys: ["json"] },
    { name: "CBOR before JSON", accept: "application/cbor, application/json;q=0.9", keys: ["json"] },
    { name: "nothing that is kept", accept: "application/cbor, text/html", keys: [] },
    { name: "YAML, which JSON is", accept: "application/yaml", keys: ["json"] },
    {
      name: "a Table in protobuf, which does not exist",
      accept: table.replace("json", "vnd.kubernetes.protobuf"),
      keys: [],
    },
    { name: "a conversion of another group", accept: "application/json;as=Table;v=v1;g=example.com", keys: [] },
    { name: "a conversion of an unknown kind", accept: "application/json;as=Chart;v=v1;g=meta.k8s.io", keys: [] },
    { name: "garbage", accept: ",;=,;;q=x", keys: [] },
  ];
  for (const { name, accept, keys } of cases) {
    test(name, () => {
      const list = acceptedRepresentations(accept);
      expect(list.map((one) => representationKey([one]))).toEqual(keys);
      expect(representationsOfKey(keys.join(","))).toEqual(list);
    });
  }
});

test("a key ends with plain JSON: what stands behind makes no difference", () => {
  expect(representationKey(acceptedRepresentations("application/json,application/vnd.kubernetes.protobuf"))).toBe(
    "json",
  );
  expect(representationKey(acceptedRepresentations("application/vnd.kubernetes.protobuf,application/json"))).toBe(
    "protobuf,json",
  );
  expect(representationKey(acceptedRepresentations(`${table},application/json`))).toBe("json;Table;v1,json");
  expect(representationKey([])).toBe("");
});

test("a key that was never made is refused", () => {
  for (const key of ["yaml", "json;Chart;v1", "json,"]) expect(() => representationsOfKey(key)).toThrow(RangeError);
});

test("upstream is asked in the same order, metadata by the name the verb wants", () => {
  const list = acceptedRepresentations(`${partial},application/json`);
  expect(upstreamAccept(list, "list")).toBe(
    "application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json",
  );
  expect(upstreamAccept(list, "watch")).toBe(
    "application/vnd.kubernetes.protobuf;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json",
  );
  expect(upstreamAccept(acceptedRepresentations(table), "get")).toBe("application/json;as=Table;g=meta.k8s.io;v=v1");
  for (const verb of ["list", "watch", "get"] as const)
    expect(acceptedRepresentations(upstreamAccept(list, verb))).toEqual(list);
});

test("an answer's codec follows its Content-Type", () => {
  expect(codecFor("application/json")).toBe(jsonCodec);
  expect(codecFor("Application/JSON; charset=utf-8")).toBe(jsonCodec);
  expect(codecFor("application/vnd.kubernetes.protobuf;stream=watch")).toBe(protobufCodec);
  for (const other of ["", "text/plain", "application/yaml", "application/cbor"])
    expect(codecFor(other)).toBeUndefined();
  expect(mediaType(" Application/JSON ; charset=utf-8")).toBe("application/json");
});
