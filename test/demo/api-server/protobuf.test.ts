import { expect, test } from "bun:test";
import { decode, encode, envelope, openEnvelope } from "../../../src/demo/api-server/protobuf.ts";
import { messageOf, normalise } from "../../../src/demo/api-server/schema.ts";
import { demoNode, demoPod, demoSlice } from "../../../src/demo/api-server/seed.ts";

test.each([
  ["a pod", "", "Pod", demoPod("web-0")],
  ["a node", "", "Node", demoNode()],
  ["an EndpointSlice", "discovery.k8s.io", "EndpointSlice", demoSlice(1)],
  [
    "a lease",
    "coordination.k8s.io",
    "Lease",
    {
      metadata: { name: "a" },
      spec: { holderIdentity: "b", leaseDurationSeconds: 40, renewTime: "2026-01-02T03:04:05.678901Z" },
    },
  ],
  [
    "a probe with a named port",
    "",
    "Pod",
    {
      metadata: { name: "a" },
      spec: { containers: [{ name: "c", livenessProbe: { httpGet: { path: "/", port: "http" }, periodSeconds: -1 } }] },
    },
  ],
] as const)("%s is the same after protobuf and back", (_, group, kind, object) => {
  const of = messageOf(group, kind)!;
  const { apiVersion: _apiVersion, kind: _kind, ...rest } = structuredClone(object) as any;
  const plain = normalise(rest, of);
  const { raw } = openEnvelope(envelope("v1", kind, encode(plain, of)));
  expect(normalise(decode(raw, of), of)).toEqual(plain);
});

// The default/kubernetes Service as kube-apiserver 1.37.2 answered it, as JSON and as protobuf.
const SERVICE_JSON = String.raw`{"metadata":{"name":"kubernetes","namespace":"default","uid":"c440309d-52f4-4d58-9aaf-3446076d1104","resourceVersion":"209","creationTimestamp":"2026-11-23T22:04:13Z","labels":{"component":"apiserver","provider":"kubernetes"},"managedFields":[{"manager":"kube-apiserver","operation":"Update","apiVersion":"v1","time":"2026-11-23T22:04:13Z","fieldsType":"FieldsV1","fieldsV1":{"f:metadata":{"f:labels":{".":{},"f:component":{},"f:provider":{}}},"f:spec":{"f:clusterIP":{},"f:internalTrafficPolicy":{},"f:ipFamilyPolicy":{},"f:ports":{".":{},"k:{\"port\":443,\"protocol\":\"TCP\"}":{".":{},"f:name":{},"f:port":{},"f:protocol":{},"f:targetPort":{}}},"f:sessionAffinity":{},"f:type":{}}}}]},"spec":{"ports":[{"name":"https","protocol":"TCP","port":443,"targetPort":6443}],"clusterIP":"10.96.0.1","clusterIPs":["10.96.0.1"],"type":"ClusterIP","sessionAffinity":"None","ipFamilies":["IPv4"],"ipFamilyPolicy":"SingleStack","internalTrafficPolicy":"Cluster"},"status":{"loadBalancer":{}}}`;
const SERVICE_PROTOBUF =
  "azhzAAoNCgJ2MRIHU2VydmljZRLnBArxAwoKa3ViZXJuZXRlcxIAGgdkZWZhdWx0IgAqJGM0NDAzMDlkLTUyZjQtNGQ1OC05YWFmLTM0NDYwNzZkMTEwNDIDMjA5OABCCAjd8JLYBhAAWhYKCWNvbX" +
  "BvbmVudBIJYXBpc2VydmVyWhYKCHByb3ZpZGVyEgprdWJlcm5ldGVzigHtAgoOa3ViZS1hcGlzZXJ2ZXISBlVwZGF0ZRoCdjEiCAjd8JLYBhAAMghGaWVsZHNWMTq4Agq1AnsiZjptZXRhZGF0YSI6" +
  "eyJmOmxhYmVscyI6eyIuIjp7fSwiZjpjb21wb25lbnQiOnt9LCJmOnByb3ZpZGVyIjp7fX19LCJmOnNwZWMiOnsiZjpjbHVzdGVySVAiOnt9LCJmOmludGVybmFsVHJhZmZpY1BvbGljeSI6e30sIm" +
  "Y6aXBGYW1pbHlQb2xpY3kiOnt9LCJmOnBvcnRzIjp7Ii4iOnt9LCJrOntcInBvcnRcIjo0NDMsXCJwcm90b2NvbFwiOlwiVENQXCJ9Ijp7Ii4iOnt9LCJmOm5hbWUiOnt9LCJmOnBvcnQiOnt9LCJm" +
  "OnByb3RvY29sIjp7fSwiZjp0YXJnZXRQb3J0Ijp7fX19LCJmOnNlc3Npb25BZmZpbml0eSI6e30sImY6dHlwZSI6e319fUIAEm0KGgoFaHR0cHMSA1RDUBi7AyIHCAAQqzIaACgAGgkxMC45Ni4wLj" +
  "EiCUNsdXN0ZXJJUDoETm9uZUIAUgBaAGAAaACKAQtTaW5nbGVTdGFja5IBCTEwLjk2LjAuMZoBBElQdjSyAQdDbHVzdGVyGgIKABoAIgA=";

test("bytes are as Kubernetes' own marshaller lays them out", () => {
  const bytes = envelope("v1", "Service", encode(JSON.parse(SERVICE_JSON), messageOf("", "Service")!));
  expect(bytes.toString("base64")).toBe(SERVICE_PROTOBUF);
});

test("a real server's bytes read as its JSON", () => {
  const of = messageOf("", "Service")!;
  const { apiVersion, kind, raw } = openEnvelope(Buffer.from(SERVICE_PROTOBUF, "base64"));
  expect([apiVersion, kind, JSON.stringify(normalise(decode(raw, of), of))]).toEqual(["v1", "Service", SERVICE_JSON]);
});
