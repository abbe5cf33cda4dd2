import { expect, test } from "bun:test";
import { protobufToJson } from "../../src/kube/protobuf-to-json.ts";
import { encode, envelope } from "../../src/demo/api-server/protobuf.ts";
import { messageOf, type JsonObject } from "../../src/demo/api-server/schema.ts";

const metadata = {
  name: "a",
  namespace: "shop",
  uid: "u",
  creationTimestamp: "2026-11-29T12:00:00Z",
  labels: { app: "web" },
};

test.each<[string, string, string, JsonObject]>([
  [
    "a Service with ports by number and by name",
    "",
    "Service",
    {
      metadata,
      spec: {
        ports: [
          { protocol: "TCP", port: 80, targetPort: "http" },
          { protocol: "TCP", port: 81, targetPort: 8081 },
        ],
        selector: { app: "web" },
        clusterIP: "10.0.0.1",
        type: "ClusterIP",
      },
      status: { loadBalancer: {} },
    },
  ],
  ["a Secret", "", "Secret", { metadata, data: { password: "aHVudGVyMg==" }, type: "Opaque" }],
  [
    "a Pod with a negative priority",
    "",
    "Pod",
    {
      metadata,
      spec: { containers: [{ name: "c", image: "i" }], priority: -10, hostNetwork: true },
      status: { phase: "Running" },
    },
  ],
  [
    "an EndpointSlice",
    "discovery.k8s.io",
    "EndpointSlice",
    {
      metadata,
      addressType: "IPv4",
      endpoints: [{ addresses: ["10.1.0.7"], conditions: { ready: true, serving: false } }],
      ports: [{ name: "http", protocol: "TCP", port: 80 }],
    },
  ],
])("%s is read as JSON has it", (_, group, kind, object) => {
  const apiVersion = group === "" ? "v1" : `${group}/v1`;
  const body = envelope(apiVersion, kind, encode(object, messageOf(group, kind)!));
  expect(protobufToJson(body)).toMatchObject({ kind, apiVersion, ...object });
});

test("a kind of which nothing is known is not shown, and what is no object is refused", () => {
  expect(protobufToJson(envelope("example.com/v1", "Widget", new Uint8Array()))).toBeUndefined();
  expect(() => protobufToJson(Buffer.from("{}"))).toThrow("no k8s envelope");
});
